"""Shared prefixes: what the rows of a batch begin with is computed once.

Distilled data repeat themselves: one long system prompt before every row, several answers to one prompt. Here the rows
of a batch become one sequence: their common tokens once, then each row's own tokens, which attend to the common ones
and to themselves. Positions of a row's own tokens continue from the common ones. The common part ends one token before
the first token that any row is trained to predict, so that no position has two labels.

Nothing is assumed about an architecture: `verify_shared_prefix` runs a few rows through the student both ways and
compares logits, loss and gradients. A student that does not agree is trained on padded rows, and the reason is told.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.dataset.collate import pad_batch
from distill.protocols import Collator
from distill.training.kernels.verification import causal_model, first_line, input_embeddings, tolerance, trial_run
from distill.training.packing import without_cache
from distill.types import IGNORE_INDEX, Example, PrefixGroup

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_WORTH = 0.8
"""Rows are grouped where that takes at most this fraction of their time without padding, by `_tree_cost`."""

_PREFIX, _OWN = 9, (5, 2, 7)  # tokens of the rows to verify with


def group_by_prefix(examples: Sequence[Example], width: int) -> list[PrefixGroup]:
    """Find the rows that are worth laying onto a common prefix.

    Answers to one prompt are a group; of all others, those with a long enough common beginning (a system prompt) are
    one more.

    Args:
        examples: the training rows.
        width: the student's hidden size, to weigh attention against everything else.
    """
    prompts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    lengths: list[int] = []
    for row, example in enumerate(examples):
        lengths.append(len(example.input_ids))
        prompts[tuple(example.input_ids[: _shareable(example.labels)])].append(row)
    groups: list[PrefixGroup] = []
    rest: dict[tuple[int, ...], list[int]] = {}
    for prompt, rows in prompts.items():
        if len(rows) > 1 and _pays(len(prompt), [lengths[row] for row in rows], width):
            groups.append(PrefixGroup(tuple(rows), len(prompt), own_tokens(len(prompt), width)))
        else:
            rest[prompt] = rows
    common = _common(list(rest))
    others = sorted(row for rows in rest.values() for row in rows)
    if len(others) > 1 and _pays(common, [lengths[row] for row in others], width):
        groups.append(PrefixGroup(tuple(others), common, own_tokens(common, width)))
    return groups


def own_tokens(shared: int, width: int) -> int:
    """How many tokens of their own the rows on one prefix should have together: more make attention too expensive."""
    return max(1, round(math.sqrt(2 * width * shared + shared**2)))


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows have in common."""
    if not rows:
        return 0
    ordered = sorted(list(row) for row in rows)
    first, last = ordered[0], ordered[-1]  # between them lie all others
    count = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        count += 1
    return count


def _shareable(labels: Sequence[int]) -> int:
    """How many first tokens of a row may be shared: all before the one that predicts the first trained token."""
    first = next((place for place, label in enumerate(labels) if place and label != IGNORE_INDEX), len(labels))
    return max(0, first - 1)


def _pays(shared: int, lengths: Sequence[int], width: int) -> bool:
    """Whether rows take clearly less time on a common prefix, with as many rows together as are best."""
    if not shared:
        return False
    own = sum(lengths) / len(lengths) - shared
    together = max(1, min(len(lengths), int(own_tokens(shared, width) / max(1.0, own))))
    alone = sum(_cost(length, width) for length in lengths) / len(lengths)
    return _tree_cost(shared + together * own, width) <= _WORTH * together * alone


def _cost(length: float, width: int) -> float:
    """The time of a row by itself, in that of a token without attention."""
    return length + length**2 / (6 * width)


def _tree_cost(length: float, width: int) -> float:
    """The same of a sequence with a mask, whose attention takes about three times as long (measured on a CPU)."""
    return length + length**2 / (2 * width)


def lay_on_prefix(
    rows: Sequence[tuple[list[int], list[int]]], shared: int, *, additive: bool = False
) -> dict[str, Tensor]:
    """Lay rows that begin alike onto their common prefix.

    Args:
        rows: tokens and labels of each.
        shared: how many first tokens are common; the next one of each row is not trained.
        additive: whether the mask is added to attention scores, as `eager` attention does.

    Returns:
        `input_ids`, `position_ids`, `labels`, each (1, tokens), and `attention_mask`, (1, 1, tokens, tokens): whether a
        token attends to another; additive, 0 where it does and the lowest number where it does not.
    """
    import torch

    ids, labels = list(rows[0][0][:shared]), [IGNORE_INDEX] * shared
    positions, branch = list(range(shared)), [-1] * shared
    for number, (tokens, row_labels) in enumerate(rows):
        ids += tokens[shared:]
        labels += [IGNORE_INDEX, *row_labels[shared + 1 :]]
        positions += range(shared, len(tokens))
        branch += [number] * (len(tokens) - shared)
    group, order = torch.tensor(branch), torch.arange(len(ids))
    mask = ((group[:, None] == group) | (group == -1)) & (order[:, None] >= order)
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
    return {**{name: torch.tensor([values]) for name, values in batch.items()}, "attention_mask": mask[None, None]}


@dataclass(frozen=True, slots=True)
class SharedPrefixCollator:
    """Lays a batch onto its common prefix, where that is worth it; else it is what another collator makes.

    Attributes:
        collate: makes padded batches.
        width: the student's hidden size.
        additive: see `lay_on_prefix`.
    """

    collate: Collator
    width: int
    additive: bool = False

    @classmethod
    def for_model(cls, collate: Collator, model: PreTrainedModel) -> SharedPrefixCollator:
        """Make the collator for a student that was verified."""
        return cls(collate, model.config.get_text_config().hidden_size, _is_additive(causal_model(model)))

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch; see `lay_on_prefix`."""
        batch = self.collate(rows)
        if len(rows) < 2 or batch.keys() != {"input_ids", "attention_mask", "labels"}:
            return batch
        real = batch["attention_mask"].bool()
        ids = [row[keep].tolist() for row, keep in zip(batch["input_ids"], real, strict=True)]
        labels = [row[keep].tolist() for row, keep in zip(batch["labels"], real, strict=True)]
        shared = min(_common(ids), *map(_shareable, labels), *(len(row) - 1 for row in ids))
        tokens = shared + sum(len(row) - shared for row in ids)
        padded = len(rows) * _cost(real.shape[1], self.width)
        if shared < 1 or _tree_cost(tokens, self.width) > padded:
            return batch
        return lay_on_prefix(list(zip(ids, labels, strict=True)), shared, additive=self.additive)


def _is_additive(causal: PreTrainedModel) -> bool:
    """Whether the student's attention adds its mask."""
    return getattr(causal.config.get_text_config(), "_attn_implementation", None) == "eager"


def verify_shared_prefix(model: PreTrainedModel, longest: int) -> str | None:
    """Verify that a student computes the same from rows on a common prefix as from padded ones.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; it is left as it was.
        longest: the most tokens of a row.

    Returns:
        None, or what is wrong.
    """
    from torch import nn

    causal = causal_model(model)
    config = causal.config.get_text_config()
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()) or any(
        getattr(config, name, 0) for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
    ):
        return "has dropout, which would be the same for all rows of a prefix"
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ([] if window is None else ["sliding_attention"]))
    if window is not None and window < longest and "sliding_attention" in kinds:
        return f"attends in a sliding window of {window} tokens"
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        return f"has layers of the kind {sorted(unknown)[0]}"
    if "position_ids" not in inspect.signature(causal.forward).parameters:
        return "takes no position_ids"
    try:
        with trial_run(model), without_cache(causal):
            return _compare(causal)
    except Exception as error:  # whatever fails on shared prefixes gets none
        return f"fails on a shared prefix: {first_line(error)}"


def _compare(causal: PreTrainedModel) -> str | None:
    """Run a few rows both ways."""
    import torch

    table = causal.get_input_embeddings().weight
    random = torch.Generator().manual_seed(0)
    prefix = torch.randint(len(table), (_PREFIX,), generator=random).tolist()
    rows = [[*prefix, *torch.randint(len(table), (own,), generator=random).tolist()] for own in _OWN]
    labels = [[*[IGNORE_INDEX] * (_PREFIX + 1), *row[_PREFIX + 1 :]] for row in rows]
    padded = pad_batch([{"input_ids": row, "labels": marks} for row, marks in zip(rows, labels, strict=True)], 0)
    laid = lay_on_prefix(list(zip(rows, labels, strict=True)), _PREFIX, additive=_is_additive(causal))
    plain, ours = (_run(causal, {name: part.to(table.device) for name, part in one.items()}) for one in (padded, laid))
    ends = [_PREFIX + own for own in _OWN]
    allowed = tolerance(plain.logits, full=1e-4, half=5e-2)
    if ours.seen[0, _PREFIX : -_OWN[-1]].any():
        return "attends across rows of a prefix"
    logits = torch.cat([plain.logits[row, _PREFIX:end] for row, end in enumerate(ends)])
    gradients = torch.cat(
        [plain.gradients[:, :_PREFIX].sum(0), *(plain.gradients[row, _PREFIX:end] for row, end in enumerate(ends))]
    )
    for what, one, other in (("logits", ours.logits[0, _PREFIX:], logits), ("gradients", ours.gradients[0], gradients)):
        apart = float((one.double() - other.double()).norm(dim=-1).max() / other.double().norm(dim=-1).max())
        if not apart <= allowed:  # nor where it is not finite
            return f"gives other {what} on a shared prefix: they differ by {apart:.1%}"
    if not abs(ours.loss - plain.loss) <= allowed * max(1.0, abs(plain.loss)):
        return f"gives another loss on a shared prefix: {ours.loss:.6f} instead of {plain.loss:.6f}"
    return None


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a model computed.

    Attributes:
        logits: (rows, length, vocabulary).
        gradients: (rows, length, width) of the loss, at the output of the input embedding.
        seen: the same, of the last row's logits.
        loss: the mean over all labels.
    """

    logits: Tensor
    gradients: Tensor
    seen: Tensor
    loss: float


def _run(causal: PreTrainedModel, batch: Mapping[str, Any]) -> _Computed:
    """One training pass, which leaves no gradient on a weight."""
    import torch

    with input_embeddings(causal) as embedded:
        outputs = causal(**batch)
    (gradients,) = torch.autograd.grad(outputs.loss, embedded[:1], retain_graph=True)
    (seen,) = torch.autograd.grad(outputs.logits[-1, -_OWN[-1] :].float().square().sum(), embedded[:1])
    return _Computed(outputs.logits.detach(), gradients, seen, float(outputs.loss.detach()))
