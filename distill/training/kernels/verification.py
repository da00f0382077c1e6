"""How a kernel is verified on the user's own model before training: run both ways on a few tokens, then compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@contextmanager
def trial_run(model: nn.Module) -> Iterator[None]:
    """Run a model to see what it computes: dropout off, gradients on; model and random state are left unchanged.

    Args:
        model: any model; each of its modules gets its own training flag back.
    """
    import torch

    was_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        for module, training in was_training:
            module.training = training


@contextmanager
def input_embeddings(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Keep what the input embedding gives in a forward pass, so that gradients can be taken there.

    Args:
        model: a causal model, of whose weights no gradient need be taken.

    Yields:
        A list that gets the tensor, (rows, length, width), of each forward pass.
    """
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Tensor) -> None:
        found.append(output if output.requires_grad else output.requires_grad_())

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def few_tokens(model: PreTrainedModel) -> dict[str, Any]:
    """A batch to try a model on: two rows of eight tokens, about half of them trained."""
    import torch

    table = model.get_input_embeddings().weight
    ids = (torch.arange(1, 17, device=table.device) % len(table)).view(2, 8)
    labels = ids.masked_fill((ids % 3 == 0) | (ids == 1), IGNORE_INDEX)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "use_cache": False}


def tolerance(values: Tensor, *, full: float = 1e-5, half: float = 2e-2) -> float:
    """How far two ways to compute `values` may differ by rounding.

    Args:
        values: whose precision counts.
        full: the relative difference allowed in 32 and 64 bits.
        half: the relative difference allowed in 16 bits.
    """
    return full if values.dtype.itemsize >= 4 else half


def causal_model(model: Any) -> PreTrainedModel:
    """The transformers model inside a PEFT model; a model without adapters is returned as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def first_line(error: Exception) -> str:
    """The first line of an error's text; of one without text, its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
