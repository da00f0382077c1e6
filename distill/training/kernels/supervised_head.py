"""The supervised head: only positions whose next label counts go through the LM head.

Every causal model of transformers projects all positions on the vocabulary, those of prompts and padding included, and
its loss then discards most of them. Here a hook before the output embedding keeps the hidden states whose next label
counts. Everything else stays the model's own code: what it does to logits (scaling, soft-capping), router losses,
adapters, parallel wrappers. Loss and gradients are those of the plain path, to rounding.

Nothing is assumed about an architecture: before training, `supervised_only` runs a dozen tokens through the model both
ways and compares loss and gradient. A model that does not agree is trained on the plain path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.dataset.soft_columns import SOFT
from distill.errors import DistillError
from distill.models.lm_head import hook_lm_head
from distill.protocols import Loss
from distill.training.kernels.cross_entropy import summed_cross_entropy
from distill.training.kernels.soft_positions import cut_chunks, select_soft
from distill.training.kernels.verification import causal_model, few_tokens, first_line, tolerance, trial_run
from distill.types import IGNORE_INDEX, SoftBatch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

log = logging.getLogger("distill")

CHUNK_LOGITS = 2**26
"""The most logits that exist at a time: 256 MiB in float32; 267 positions of BLOOM's 250,880 tokens."""

Tail = Callable[["Tensor"], "Tensor"]
"""What a model does to the output of its projection: scaling, soft-capping, or nothing."""

HeadLoss = Callable[["Tensor", "Tensor", "SoftBatch | None"], "Tensor"]
"""The summed loss of some positions; see `distill.Loss.sum`. It is called once per chunk of positions, in order."""


def _cross_entropy(logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
    return summed_cross_entropy(logits, labels)


@contextmanager
def supervised_only(model: nn.Module, loss: Loss | None = None) -> Iterator[bool]:
    """Within this context, training forward passes of `model` project only positions whose next label counts.

    It changes calls with `labels` (unshifted, -100 where a token does not count) while gradients are recorded: their
    `loss` and gradients are the plain path's, their `logits` are None. Other calls (evaluation, generation) are not
    changed. Enter it around the training loop, with the model on its device, before DDP or FSDP wrap it.
    `num_items_in_batch` divides the summed loss as it does in transformers 5.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        loss: what is summed in place of the cross-entropy; batches may then have soft targets (`soft_labels`).

    Yields:
        Whether it is in effect. False: the model computes its loss in its own way, or gave another result here; it
        takes the plain path, and a log line gives the reason.

    Raises:
        DistillError: it cannot be in effect, and there is a `loss`, which the plain path does not have.
    """
    causal = causal_model(model)
    head = _Head(causal)
    reason = head.attach()
    if reason is None:
        try:
            reason = head.verify()
        except BaseException:
            head.detach()
            raise
    if reason is not None:
        head.detach()
        if loss is not None:
            raise DistillError(
                f"this loss cannot be used with {type(causal).__name__}: it {reason}", "use --loss cross-entropy"
            )
        log.warning("every position is projected on the vocabulary: %s %s", type(causal).__name__, reason)
    if loss is not None:
        head.loss = loss.sum  # from here on: it was verified with the cross-entropy, which the plain path has too
    try:
        yield reason is None
    finally:
        head.detach()


@dataclass(slots=True)
class _Pass:
    """One forward pass: what counts in it, and what the hooks have kept for the loss.

    Attributes:
        wanted: (rows, length) the label each position is to predict, -100 where it does not count; once the LM head is
            reached, (positions,) the labels that count.
        project: the output embedding, as wrapped as it is in this pass; None until it is reached.
        hidden: (positions, width) the hidden states that count; None until the LM head is reached.
        chunks: how many of them are projected at a time; the first chunk by the model, the others by the loss.
        soft: (rows, length, …) the batch's soft targets, by the label they belong to; once the LM head is reached, of
            the positions that count.
    """

    wanted: Tensor
    soft: Mapping[str, Tensor] | SoftBatch | None = None
    project: nn.Module | None = None
    hidden: Tensor | None = None
    chunks: list[int] = field(default_factory=list)


class _Head:
    """The hooks on one model.

    Args:
        model: the model.
        loss: what is summed over the positions that count.
    """

    def __init__(self, model: PreTrainedModel, loss: HeadLoss = _cross_entropy):
        self.model = model
        self.loss = loss
        self.tail: Tail | None = None  # None: unknown, all positions that count are projected at once
        self.chunk_logits = CHUNK_LOGITS
        self._local = threading.local()  # DataParallel runs its replicas in threads
        self._handles: list[Any] = []
        self._plain_loss: Callable[..., Tensor] | None = None
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
        self.model.loss_function = self._model_loss
        self._handles = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            hook_lm_head(project, self._select),
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

    def verify(self) -> str | None:
        """Compare loss and gradient on a few tokens with the plain path's, and learn the model's tail.

        Returns:
            None, or what is wrong.
        """
        try:
            with trial_run(self.model):
                return self._compare()
        except Exception as error:  # whatever fails on a model is not used for it
            return f"fails there: {first_line(error)}"
        finally:
            self.chunk_logits = CHUNK_LOGITS
            self._probe = self._local.current = None

    def _compare(self) -> str | None:
        plain = self._run(select=False)
        ours = self._run(select=True)
        if not ours.agrees_with(plain):
            return f"gives another loss there: {ours.loss:.6f} instead of {plain.loss:.6f}"
        if plain.raw_logits is None or plain.logits is None:
            return None
        self.tail = find_tail(plain.raw_logits, plain.logits, self.model.config)
        self.chunk_logits = 3 * plain.logits.shape[-1]  # three positions at a time
        if self.tail is not None and not self._run(select=True).agrees_with(plain):
            self.tail = None
        return None

    def _run(self, *, select: bool) -> _Observed:
        """One pass over the probe's tokens."""
        import torch

        probe = self._probe = _Probe(select)
        outputs = self.model(**few_tokens(self.model))
        if probe.hidden is None:
            raise ValueError("its output embedding was not called")
        (gradient,) = torch.autograd.grad(outputs.loss, probe.hidden)
        return _Observed(float(outputs.loss.detach()), gradient, probe.raw_logits, outputs.logits)

    def _current(self) -> _Pass | None:
        current: _Pass | None = getattr(self._local, "current", None)
        return current

    def _begin(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before the model: find what counts; the soft targets are for the loss alone."""
        import torch

        self._local.current = None
        kwargs = dict(kwargs)
        soft = kwargs.pop(SOFT, None)
        labels, wanted = kwargs.get("labels"), kwargs.get("shift_labels")
        if labels is None or "ignore_index" in kwargs or not torch.is_grad_enabled():
            return args, kwargs
        if wanted is None:
            wanted = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)
        self._local.current = _Pass(wanted, soft)
        return args, kwargs

    def _select(self, project: nn.Module, hidden: Tensor) -> Tensor | None:
        """Before the output embedding: keep what counts, as one row, and no more of it than one chunk."""
        current = self._current()
        if current is None or current.hidden is not None or hidden.shape[:-1] != current.wanted.shape:
            return None
        if self._probe is not None:
            hidden = self._probe.take(hidden)
            if not self._probe.select:
                return hidden
        current.wanted = current.wanted.to(hidden.device)
        keep = current.wanted != IGNORE_INDEX
        if current.soft is not None:
            current.soft = select_soft(current.soft, keep)
        current.project, current.hidden, current.wanted = project, hidden[keep], current.wanted[keep]
        current.chunks = cut_chunks(len(current.hidden), self._chunk_rows(project), current.soft)
        return current.hidden[: current.chunks[0]].unsqueeze(0)

    def _watch(self, project: nn.Module, args: tuple[Any, ...], logits: Tensor) -> None:
        """After the output embedding: keep its output for the probe."""
        if self._probe is not None and not self._probe.select:
            self._probe.raw_logits = logits.detach().clone()

    def _chunk_rows(self, project: nn.Module) -> int:
        """How many positions are projected at a time."""
        vocabulary: int | None = getattr(project, "out_features", None)
        if self.tail is None or vocabulary is None:
            return 2**62
        return max(1, self.chunk_logits // vocabulary)

    def _model_loss(self, logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
        """Replaces the model's loss function: the same loss, over the positions that count."""
        current = self._current()
        if current is None or current.hidden is None:
            assert self._plain_loss is not None
            return self._plain_loss(logits, labels, vocab_size, **kwargs)
        first, soft = current.chunks[0], current.soft
        assert soft is None or isinstance(soft, SoftBatch)
        wanted = current.wanted.to(logits.device)
        here = None if soft is None else soft[:first]
        total = self.loss(logits.reshape(-1, logits.shape[-1]), wanted[:first], here)
        if first < len(wanted):
            total = total + self._other_chunks(current, wanted, soft)
        items = kwargs.get("num_items_in_batch")
        if items is None:
            items = max(1, len(wanted))
        return total / (items.to(total.device) if hasattr(items, "to") else items)

    def _other_chunks(self, current: _Pass, wanted: Tensor, soft: SoftBatch | None) -> Tensor:
        """The loss of what does not fit into the first chunk. Its logits are computed again for the gradient."""
        import torch
        from torch.utils.checkpoint import checkpoint

        project, hidden, tail = current.project, current.hidden, self.tail
        assert project is not None and hidden is not None and tail is not None  # else all is in the first chunk
        project_all, tail_all = _without_exchange(project), tail

        def chunk(hidden: Tensor, wanted: Tensor, soft: SoftBatch | None) -> Tensor:
            return self.loss(tail_all(project_all(hidden.unsqueeze(0)))[0], wanted, soft)

        losses, start = [], current.chunks[0]
        for size in current.chunks[1:]:
            here = slice(start, start + size)
            some = None if soft is None else soft[here]
            losses.append(checkpoint(chunk, hidden[here], wanted[here], some, use_reentrant=False))
            start += size
        return torch.stack(losses).sum()

    def _end(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        """After the model, also where it failed: forget the pass, and the logits, whose memory now holds a gradient."""
        current = self._current()
        self._local.current = None
        if current is not None and current.hidden is not None and hasattr(outputs, "logits"):
            outputs.logits = None


def _without_exchange(project: nn.Module) -> Callable[[Tensor], Tensor]:
    """An output embedding to call once more in a pass.

    FSDP's hooks exchange weights or gradients with the other processes at each call, and these may have another number
    of chunks. After the first call the whole table is there, until the backward pass has ended.
    """
    from torch.distributed.fsdp import FSDPModule

    call: Callable[[Tensor], Tensor] = project.forward if isinstance(project, FSDPModule) else project
    return call


@dataclass(slots=True)
class _Probe:
    """What the hooks record while a few tokens are tried in one of the two ways."""

    select: bool
    hidden: Tensor | None = None
    raw_logits: Tensor | None = None

    def take(self, hidden: Tensor) -> Tensor:
        """Cut the graph before the output embedding, and scale the values up: soft-capping shows on large ones only."""
        import torch

        spread = torch.logspace(0, 3, hidden.shape[1], device=hidden.device, dtype=hidden.dtype)
        self.hidden = (hidden.detach() * spread[:, None]).requires_grad_()
        return self.hidden


@dataclass(frozen=True, slots=True)
class _Observed:
    """What one of the two ways gave.

    Attributes:
        loss: of the few tokens.
        gradient: its gradient at the hidden states before the LM head.
        raw_logits: the projection's output; None where positions were selected.
        logits: the model's; None where positions were selected.
    """

    loss: float
    gradient: Tensor
    raw_logits: Tensor | None
    logits: Tensor | None

    def agrees_with(self, other: _Observed) -> bool:
        """Whether loss and gradient are the same, to rounding."""
        allowed = tolerance(self.gradient)
        near = (self.gradient - other.gradient).norm() <= allowed * other.gradient.norm()
        return bool(near) and abs(self.loss - other.loss) <= allowed * max(1.0, abs(other.loss))


def find_tail(raw: Tensor, logits: Tensor, config: Any) -> Tail | None:
    """Find what a model does to its logits after the projection.

    Nothing, scaling (Cohere, Granite) and soft-capping (Gemma) are known.

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
    if torch.equal(raw, logits):
        return lambda raw: raw
    allowed = tolerance(logits)
    scale = ((raw.double() * logits.double()).sum() / raw.double().square().sum()).item()
    cap = getattr(config.get_text_config(), "final_logit_softcapping", None)
    tails: list[Tail] = [lambda raw: torch.tanh(raw / cap) * cap] if cap else []
    tails.append(lambda raw: raw * scale)
    return next((tail for tail in tails if torch.allclose(tail(raw), logits, rtol=allowed, atol=allowed)), None)
