"""Batches: rows padded on the right, with the padding masked in attention and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.protocols import CollatingLabeler, Collator, Labeler
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor


def pad_batch(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Pad rows `{input_ids, labels}` to the longest, on the right.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each (rows, longest), int64.
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORE_INDEX)
    for n, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[n, :length] = torch.tensor(row["input_ids"])
        attention_mask[n, :length] = 1
        labels[n, :length] = torch.tensor(row["labels"])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@dataclass(frozen=True, slots=True)
class PaddingCollator:
    """The collator for labels made beforehand: it only pads, so that the pad token may be the EOS token."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch."""
        return pad_batch(rows, self.pad_token_id)


def collator_for(labeler: Labeler, pad_token_id: int) -> Collator:
    """The collator for a labeler's rows, in training and in `show`: its own, or the padding one."""
    if isinstance(labeler, CollatingLabeler):
        return labeler.collator(pad_token_id)
    return PaddingCollator(pad_token_id)
