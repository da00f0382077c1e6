"""The supervised-only head: project a position on the vocabulary only where the label of the next token counts.

Every causal model of transformers projects all positions, of prompts and padding too, and its loss then throws most of
them away. Here a hook before the output embedding keeps the hidden states whose next label counts. Everything else
stays the model's own code: what it does to logits (scaling, soft-capping), router losses, adapters, parallel wrappers.
The loss and all gradients are those of the plain path, to rounding.

Nothing is assumed about an architecture: before training, `supervised_only` runs a dozen tokens through the model both
ways and compares loss and gradient. A model that does not agree is trained on the plain path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.training.kernels.cross_entropy import summed_cross_entropy
from distill.training.kernels.tied_embedding import few_tokens, one_gradient
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

log = logging.getLogger("distill")

CHUNK_LOGITS = 2**26
"""The most logits that exist at a time: 256 MiB in float32; 267 positions of BLOOM's 250,880 words."""

Tail = Callable[["Tensor"], "Tensor"]
"""What a model does to the output of its projection: scaling, soft-capping, or nothing."""


@contextmanager
def supervised_only(model: nn.Module) -> Iterator[bool]:
    """Within this context, training forward passes of `model` project only positions whose next label counts.

    It changes calls with `labels` (unshifted, -100 where a token does not count) while gradients are recorded: their
    `loss` and gradients are the plain path's, their `logits` are None. Other calls (evaluation, generation) stay as
    they are. Enter it around the training loop, with the model on its device, before DDP or FSDP wrap it.
    `num_items_in_batch` divides the summed loss as it does in transformers 5.

        with supervised_only(model):
            for batch in batches:
                model(**batch).loss.backward()

    Args:
        model: a causal language model of transformers, or a PEFT model around one.

    Yields:
        Whether it is in effect. False: the model computes its loss in a way of its own, or gave another result here; it
        takes the plain path, and a log line says so.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = _Head(causal)
    reason = head.attach()
    if reason is None:
        try:
            reason = head.prove()
        except BaseException:
            head.detach()
            raise
    if reason is not None:
        head.detach()
        log.warning("every position is projected on the vocabulary: %s %s", type(causal).__name__, reason)
    try:
        with one_gradient(causal):
            yield reason is None
    finally:
        head.detach()


@dataclass(slots=True)
class _Pass:
    """One forward pass: what counts in it, and what the hooks have kept for the loss.

    Attributes:
        wanted: (rows, length) the label each position is to predict, -100 where it does not count.
        project: the output embedding, as wrapped as it is in this pass.
        hidden: (positions, width) the hidden states that count; None until the output embedding is reached.
        projected: how many of them the model projects itself; the loss projects the others.
    """

    wanted: Tensor
    project: nn.Module | None = None
    hidden: Tensor | None = None
    projected: int = 0


class _Head:
    """The hooks on one model."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.tail: Tail | None = None  # None: unknown, all positions that count are projected at once
        self.chunk_logits = CHUNK_LOGITS
        self._local = threading.local()  # DataParallel runs its replicas in threads
        self._handles: list[Any] = []
        self._plain_loss: Any = None
        self._probe: _Probe | None = None

    def attach(self) -> str | None:
        """Put the hooks on.

        Returns:
            None, or why this model cannot have them.
        """
        from transformers.loss.loss_utils import ForCausalLMLoss

        project = self.model.get_output_embeddings() if hasattr(self.model, "get_output_embeddings") else None
        if project is None:
            return "has no output embedding"
        self._plain_loss = getattr(self.model, "loss_function", None)
        if self._plain_loss is not ForCausalLMLoss:
            return "has a loss of its own"
        self.model.loss_function = self._loss
        self._handles = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            project.register_forward_pre_hook(self._select),
            project.register_forward_hook(self._watch),
            self.model.register_forward_hook(self._end, always_call=True),
        ]
        return None

    def detach(self) -> None:
        """Take the hooks off: the model is as it was."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            del self.model._loss_function
        self._handles = []

    def prove(self) -> str | None:
        """Compare the loss and its gradient on a few tokens with the plain path's, and learn the model's tail.

        Returns:
            None, or what is wrong.
        """
        import torch

        was_training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng(), torch.enable_grad():
                plain = self._run(_Probe(select=False))
                ours = self._run(_Probe(select=True))
                if not ours.agrees_with(plain):
                    return f"gives another loss there: {ours.loss:.6f} instead of {plain.loss:.6f}"
                self.tail = find_tail(plain.raw_logits, plain.logits, self.model.config)
                self.chunk_logits = 3 * plain.logits.shape[-1]  # three positions at a time
                if self.tail is not None and not self._run(_Probe(select=True)).agrees_with(plain):
                    self.tail = None
        except Exception as error:  # whatever a model cannot do with it, it does not get
            return f"fails there: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        finally:
            self.model.train(was_training)
            self.chunk_logits = CHUNK_LOGITS
            self._probe = self._local.current = None
        return None

    def _run(self, probe: _Probe) -> _Probe:
        """One pass over the probe's tokens."""
        import torch

        self._probe = probe
        outputs = self.model(**few_tokens(self.model))
        (probe.gradient,) = torch.autograd.grad(outputs.loss, probe.hidden)
        probe.loss, probe.logits = float(outputs.loss.detach()), outputs.logits
        return probe

    def _begin(self, model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Before the model: find what counts."""
        import torch

        self._local.current = None
        labels, wanted = kwargs.get("labels"), kwargs.get("shift_labels")
        if labels is None or "ignore_index" in kwargs or not torch.is_grad_enabled():
            return
        if wanted is None:
            wanted = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)
        self._local.current = _Pass(wanted)

    def _select(self, project: nn.Module, args: tuple) -> tuple | None:
        """Before the output embedding: keep what counts, as one row; no more of it than one chunk."""
        current: _Pass | None = getattr(self._local, "current", None)
        if current is None or current.hidden is not None or not args:
            return None
        hidden = args[0]
        if hidden.shape[:-1] != current.wanted.shape:
            return None
        if self._probe is not None:
            hidden = self._probe.take(hidden)
            if not self._probe.select:
                return hidden, *args[1:]
        current.wanted = current.wanted.to(hidden.device)
        keep = current.wanted != IGNORE_INDEX
        current.project, current.hidden, current.wanted = project, hidden[keep], current.wanted[keep]
        current.projected = min(len(current.hidden), self._chunk_rows(project))
        return current.hidden[: current.projected].unsqueeze(0), *args[1:]

    def _watch(self, project: nn.Module, args: tuple, logits: Tensor) -> None:
        """After the output embedding: the probe wants to know what it gave."""
        if self._probe is not None and not self._probe.select:
            self._probe.raw_logits = logits.detach().clone()

    def _chunk_rows(self, project: nn.Module) -> int:
        """How many positions are projected at a time."""
        vocabulary = getattr(project, "out_features", None)
        if self.tail is None or vocabulary is None:
            return 2**62
        return max(1, self.chunk_logits // vocabulary)

    def _loss(self, logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        """In place of the model's loss function: the same, over the positions that count."""
        current: _Pass | None = getattr(self._local, "current", None)
        if current is None or current.hidden is None:
            return self._plain_loss(logits, labels, vocab_size, **kwargs)
        first = current.projected
        wanted = current.wanted.to(logits.device)
        total = summed_cross_entropy(logits.reshape(-1, logits.shape[-1]), wanted[:first])
        if first < len(wanted):
            total = total + self._rest(current.project, current.hidden[first:], wanted[first:], first)
        items = kwargs.get("num_items_in_batch")
        if items is None:
            items = max(1, len(wanted))
        return total / (items.to(total.device) if hasattr(items, "to") else items)

    def _rest(self, project: nn.Module, hidden: Tensor, wanted: Tensor, rows: int) -> Tensor:
        """The loss of what does not fit into the first chunk. Its logits are computed again for the gradient."""
        from torch.utils.checkpoint import checkpoint

        def chunk(hidden: Tensor, wanted: Tensor) -> Tensor:
            return summed_cross_entropy(self.tail(project(hidden.unsqueeze(0)))[0], wanted)

        return sum(
            checkpoint(chunk, some, labels, use_reentrant=False)
            for some, labels in zip(hidden.split(rows), wanted.split(rows), strict=True)
        )

    def _end(self, model: nn.Module, args: tuple, outputs: Any) -> None:
        """After the model, also where it failed: forget the pass, and the logits, whose memory holds a gradient now."""
        current: _Pass | None = getattr(self._local, "current", None)
        self._local.current = None
        if current is not None and current.hidden is not None and hasattr(outputs, "logits"):
            outputs.logits = None


@dataclass(slots=True)
class _Probe:
    """The loss of a few tokens, computed in one of the two ways."""

    select: bool
    hidden: Tensor | None = None
    gradient: Tensor | None = None
    loss: float = 0.0
    raw_logits: Tensor | None = None
    logits: Tensor | None = None

    def take(self, hidden: Tensor) -> Tensor:
        """Cut the graph before the output embedding, and spread the values: soft-capping shows on large ones only."""
        import torch

        spread = torch.logspace(0, 3, hidden.shape[1], device=hidden.device, dtype=hidden.dtype)
        self.hidden = (hidden.detach() * spread[:, None]).requires_grad_()
        return self.hidden

    def agrees_with(self, other: _Probe) -> bool:
        """Whether loss and gradient are the same, to rounding."""
        import torch

        tolerance = 1e-5 if self.gradient.dtype in (torch.float32, torch.float64) else 2e-2
        apart = (self.gradient - other.gradient).norm() <= tolerance * other.gradient.norm()
        return bool(apart) and abs(self.loss - other.loss) <= tolerance * max(1.0, abs(other.loss))


def find_tail(raw: Tensor, logits: Tensor, config: Any) -> Tail | None:
    """What a model does to its logits after the projection: nothing, scaling (Cohere, Granite), soft-capping (Gemma).

    Args:
        raw: the projection's output.
        logits: what the model made of it; the same shape, where this finds anything.
        config: the model's, for the soft-cap.

    Returns:
        A function of any part of `raw`; None: none of these explains `logits`.
    """
    import torch

    if raw.shape != logits.shape:
        return None
    raw, logits = raw.detach(), logits.detach()
    tolerance = 1e-5 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    scale = ((raw.double() * logits.double()).sum() / raw.double().square().sum()).item()
    cap = getattr(config.get_text_config(), "final_logit_softcapping", None)
    if torch.equal(raw, logits):
        return lambda raw: raw
    tails: list[Tail] = [lambda raw: torch.tanh(raw / cap) * cap] if cap else []
    tails.append(lambda raw: raw * scale)
    return next((tail for tail in tails if torch.allclose(tail(raw), logits, rtol=tolerance, atol=tolerance)), None)
