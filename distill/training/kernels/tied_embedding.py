"""A tied embedding's gradient, made once.

Where the input and the output embedding are one table, autograd makes a gradient of the table's size for each and a
third one for their sum: of BLOOM's 250,880 words in float32 a GB each, more than all logits. They are what a training
step of a small model peaks at. Here both uses meet before the table: the lookup's gradient stays the few rows that
were looked up, and is added into the projection's.

To autograd it is one graph like any other: whoever watches the table's gradient (DDP, FSDP, hooks) sees the sum, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from distill.training.kernels.verification import few_tokens, tolerance, trial_run

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

log = logging.getLogger("distill")


@contextmanager
def one_gradient(model: PreTrainedModel) -> Iterator[bool]:
    """Within this context, forward passes of `model` make the gradient of its tied table once.

    Args:
        model: a causal language model, on its device, before DDP or FSDP wrap it.

    Yields:
        Whether it is in effect. False: nothing is tied, its modules are not the plain ones, it is not float32, or it
        gave another gradient on a few tokens here; then the model makes the gradient in its own way.
    """
    table = _TiedTable(model)
    try:
        yield table.attach()
    finally:
        table.detach()


class _TiedTable:
    """The hooks on one model: for the time of a call, each embedding has its own view of the table as its weight."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self._handles: list[Any] = []
        self._table: Tensor | None = None  # of this pass
        self._for_projection: Tensor | None = None  # the view that this pass's projection is to use
        self._lent: dict[nn.Module, nn.Parameter] = {}  # module → its own weight, while it has a view

    def attach(self) -> bool:
        """Put the hooks on, where they are verified to be right."""
        if not self._is_plain():
            return False
        try:
            plain = self._gradient()
            self._hook()
            if self._agree(self._gradient(), plain):
                return True
        except Exception as error:  # whatever fails on a model is not used for it
            log.debug("the tied table's gradient is made twice: %s", error)
        self.detach()
        return False

    def detach(self) -> None:
        """Take the hooks off: the model is as it was."""
        for handle in self._handles:
            handle.remove()
        for module in list(self._lent):
            self._give_back(module)
        self._handles, self._table, self._for_projection = [], None, None

    def _is_plain(self) -> bool:
        """Whether both are torch's own modules on one table: their gradients are known to belong to nobody else."""
        from torch import nn

        if not hasattr(self.model, "get_output_embeddings"):
            return False
        embedding, project = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        return (
            isinstance(embedding, nn.Embedding)
            and type(project) is nn.Linear
            and "forward" not in vars(project)
            and project.weight is embedding.weight
            and not (embedding.sparse or embedding.scale_grad_by_freq or embedding.max_norm)
            and _is_trained(embedding.weight)
        )

    def _hook(self) -> None:
        embedding, project = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        self._handles = [
            self.model.register_forward_pre_hook(self._forget),
            embedding.register_forward_pre_hook(self._look_up),
            embedding.register_forward_hook(self._give_back, always_call=True),
            project.register_forward_pre_hook(self._project),
            project.register_forward_hook(self._give_back, always_call=True),
            self.model.register_forward_hook(self._forget, always_call=True),
        ]

    def _gradient(self) -> Tensor:
        """The table's, on a few tokens."""
        import torch

        with trial_run(self.model):
            loss = self.model(**few_tokens(self.model)).loss
            gradient: Tensor = torch.autograd.grad(loss, self.model.get_input_embeddings().weight)[0]
        return gradient

    @staticmethod
    def _agree(ours: Tensor, plain: Tensor) -> bool:
        return ours.layout == plain.layout and bool((ours - plain).norm() <= tolerance(plain) * plain.norm())

    def _look_up(self, embedding: nn.Embedding, args: tuple[Any, ...]) -> None:
        """Before the lookup, the first of a pass: take two views of the table, and use the one."""
        import torch

        table = embedding._parameters.get("weight")  # None in DataParallel's replicas
        if self._table is not None or torch.compiler.is_compiling():
            return
        if table is None or not torch.is_grad_enabled() or not _is_trained(table):
            return
        view, self._for_projection = _two_views().apply(table)
        self._table = table
        self._lend(embedding, view)
        embedding.sparse = True

    def _project(self, project: nn.Linear, args: tuple[Any, ...]) -> None:
        """Before the projection, the first of a pass: use the other view."""
        if self._for_projection is not None and project._parameters.get("weight") is self._table:
            self._lend(project, self._for_projection)
            self._for_projection = None

    def _lend(self, module: nn.Module, view: Tensor) -> None:
        self._lent[module] = cast("nn.Parameter", module._parameters["weight"])
        module._parameters["weight"] = cast("nn.Parameter", view)  # a view of one, for the time of this call

    def _give_back(self, module: nn.Module, *args: Any) -> None:
        """After the call, also where it failed."""
        if module in self._lent:
            module._parameters["weight"] = self._lent.pop(module)
            if isinstance(getattr(module, "sparse", None), bool):
                setattr(module, "sparse", False)  # noqa: B010 - to a type checker, a module's attributes are modules

    def _forget(self, *args: Any) -> None:
        """Before and after a pass."""
        self._table = self._for_projection = None


def _is_trained(table: Tensor) -> bool:
    """Whether it is a trained parameter, whole (DeepSpeed fetches it later), that takes many small sums.

    In 16 bits each of them would be rounded.
    """
    import torch
    from torch import nn

    return (
        type(table) is nn.Parameter
        and table.requires_grad
        and table.ndim == 2
        and table.dtype in (torch.float32, torch.float64)
    )


@cache
def _two_views() -> Any:
    import torch
    from torch.autograd.function import once_differentiable

    class TwoViews(torch.autograd.Function):
        """One table for the lookup, and one for the projection; their gradients come back together."""

        @staticmethod
        def forward(ctx: Any, table: Tensor) -> tuple[Tensor, Tensor]:
            ctx.set_materialize_grads(False)
            return table.view_as(table), table.view_as(table)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, looked_up: Tensor | None, projected: Tensor | None) -> Tensor | None:
            if projected is None or looked_up is None:  # one of them was not used
                return projected if looked_up is None else looked_up.to_dense()
            if not projected.is_contiguous():
                return projected + looked_up
            return projected.add_(looked_up)  # nobody else has it: it comes from the product of a plain Linear

    return TwoViews
