"""Packing: the rows of a forward pass are concatenated into one sequence, so that no padding is computed.

The positions of each row restart at 0; by that, transformers' masks and flash attention's variable-length kernels
keep the rows apart. They do so in models that look at positions: one with ALiBi (BLOOM, MPT) or with a state (Mamba)
attends across rows, without a warning. Nothing is assumed about an architecture: `verify_packing` runs a few rows
through the student both ways and compares logits, loss and gradients. A student that does not agree is not packed.
That a row has no part in another's logits shows in its gradients there: they are exactly zero, in every precision.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.dataset.collate import pad_batch
from distill.dataset.soft_columns import SOFT
from distill.protocols import Collator
from distill.training.kernels.row_attention import attention_by_row
from distill.training.kernels.verification import causal_model, first_line, input_embeddings, tolerance, trial_run
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_LENGTHS = (12, 7, 1, 14)  # of the rows to verify with


def pack(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Concatenate the rows of a padded batch.

    Args:
        batch: `input_ids`, `attention_mask` and `labels`, each (rows, longest); padded on either side.

    Returns:
        `input_ids`, `position_ids` and `labels`, each (1, tokens), without padding and without an attention mask; and
        `soft_labels`, where the batch has them, likewise. The first token of a row has no label, since no token of its
        row comes before it.
    """
    real = batch["attention_mask"].bool()
    positions = batch["attention_mask"].cumsum(1) - 1
    labels = batch["labels"].masked_fill(positions == 0, IGNORE_INDEX)
    packed = {"input_ids": batch["input_ids"], "position_ids": positions, "labels": labels}
    made: dict[str, Any] = {name: values[real].unsqueeze(0) for name, values in packed.items()}
    if SOFT in batch:
        made[SOFT] = {name: values[real].unsqueeze(0) for name, values in batch[SOFT].items()}
    return made


@dataclass(frozen=True, slots=True)
class PackingCollator:
    """Packs what another collator made: labels that are made of a batch are made before.

    Attributes:
        collate: makes padded batches.
    """

    collate: Collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch; see `pack`."""
        return pack(self.collate(rows))


@contextmanager
def without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Keep a model from filling a cache for generation: with a cache, transformers takes packed rows for one row.

    Trainers of transformers turn it off for good; afterwards the config has its old value again.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
    """
    configs = [model.config, model.config.get_text_config()]
    before = [getattr(config, "use_cache", None) for config in configs]
    for config in configs:
        config.use_cache = False
    try:
        yield
    finally:
        for config, value in zip(configs, before, strict=True):
            config.use_cache = value


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[bool]:
    """Within this context, packed rows take the attention that is fastest on this machine.

    Args:
        model: a causal language model of transformers, or a PEFT model around one, that `verify_packing` found right.

    Yields:
        Whether each row attends by itself; it is verified on this model first.
    """
    with attention_by_row(causal_model(model)) as by_row:
        if not by_row or verify_packing(model, 0) is None:
            yield by_row
            return
    yield False


def verify_packing(model: PreTrainedModel, longest_pack: int) -> str | None:
    """Verify that a student computes the same from packed rows as from padded ones.

    Logits, loss and the gradients at the input are compared on a few random rows, its padding token among them. Where
    packs will be longer than the student's last position, a pack as long as that is tried, too.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; it is left as it was.
        longest_pack: the most tokens of a forward pass.

    Returns:
        None, or what is wrong.
    """
    causal = causal_model(model)
    try:
        with trial_run(model), without_cache(causal):
            rows = _rows(causal)
            padded = _run(causal, rows)
            reason = _difference(_run(causal, pack(rows)), padded)
            limit = getattr(causal.config.get_text_config(), "max_position_embeddings", None) or longest_pack
            if reason is None and longest_pack > limit:
                reason = _try_long(causal, rows, limit)
    except Exception as error:  # whatever fails on packed rows gets none
        reason = f"fails on packed rows: {first_line(error)}"
    if reason is not None and "position_ids" not in inspect.signature(causal.forward).parameters:
        reason += " (it takes no position_ids)"
    return reason


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a model computed from the rows: one line for each token that is not padding.

    Attributes:
        logits: (tokens, vocabulary).
        gradients: (tokens, width) of the loss, at the output of the input embedding.
        seen: of the same shape: the gradients of the last row's logits.
        loss: the mean over all labels.
    """

    logits: Tensor
    gradients: Tensor
    seen: Tensor
    loss: float


def _rows(causal: PreTrainedModel) -> dict[str, Tensor]:
    """The rows to verify with, padded. Every token has a label; a padding token among them is a token like others."""
    import torch

    table = causal.get_input_embeddings().weight
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(len(table), (length,), generator=random).tolist() for length in _LENGTHS]
    pad = getattr(causal.config.get_text_config(), "pad_token_id", None)
    if pad is not None and 0 <= pad < len(table):
        rows[0][-1] = rows[1][2] = pad
    batch = pad_batch([{"input_ids": row, "labels": row} for row in rows], pad or 0)
    return {name: values.to(table.device) for name, values in batch.items()}


def _run(causal: PreTrainedModel, batch: Mapping[str, Any]) -> _Computed:
    """One training pass, of which no gradient stays on a weight."""
    import torch

    with input_embeddings(causal) as embedded:
        outputs = causal(**batch)
    real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(batch["input_ids"]).bool()
    logits = outputs.logits[real]
    (gradients,) = torch.autograd.grad(outputs.loss, embedded[:1], retain_graph=True)
    (seen,) = torch.autograd.grad(logits[-_LENGTHS[-1] :].float().square().sum(), embedded[:1])
    return _Computed(logits.detach(), gradients[real], seen[real], float(outputs.loss.detach()))


def _difference(packed: _Computed, padded: _Computed) -> str | None:
    """The first thing in which they differ by more than rounding; None: nothing."""
    tolerance = _tolerance(padded.logits)
    apart = _apart(packed.logits, padded.logits)
    if packed.seen[: -_LENGTHS[-1]].any():
        return f"attends across rows, which moves its logits by {apart:.1%}"
    if not apart <= tolerance:  # nor where it is not finite
        return f"gives other logits for packed rows: they are off by {apart:.1%}"
    if not abs(packed.loss - padded.loss) <= tolerance * max(1.0, abs(padded.loss)):
        return f"gives another loss for packed rows: {packed.loss:.6f} instead of {padded.loss:.6f}"
    apart = _apart(packed.gradients, padded.gradients)
    if not apart <= tolerance:
        return f"gives other gradients for packed rows: they are off by {apart:.1%}"
    return None


def _try_long(causal: PreTrainedModel, rows: Mapping[str, Tensor], limit: int) -> str | None:
    """Repeat the rows beyond the last position: the last copy must give the same hidden states as the first."""
    import torch

    copies = limit // sum(_LENGTHS) + 1
    batch = pack({name: values.repeat(copies, 1) for name, values in rows.items()})
    del batch["labels"]
    with torch.no_grad():
        first, *_, last = causal.base_model(**batch)[0].squeeze(0).split(sum(_LENGTHS))
    apart = _apart(last, first)
    if not apart <= _tolerance(first):
        return f"computes something else after its last position, {limit}: its hidden states are off by {apart:.1%}"
    return None


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest distance between two lines, as a fraction of the longest line."""
    one, other = one.double(), other.double()
    return float((one - other).norm(dim=-1).max() / other.norm(dim=-1).max())


def _tolerance(values: Tensor) -> float:
    return tolerance(values, full=1e-4, half=5e-2)  # kernels round otherwise in other shapes
