"""Soft targets as columns of the table of examples, and as tensors of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.protocols import Collator
from distill.types import SoftTargets

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

SOFT = "soft_labels"
"""The key of a batch under which its soft targets are: a mapping of tensors, each (rows, longest, …)."""

_COLUMNS = {"kind": "int8", "size": "int16", "logprob": "float32", "ids": "int32", "logprobs": "float16"}
_PER_CANDIDATE = ("ids", "logprobs")


def to_columns(targets: Sequence[SoftTargets | None]) -> dict[str, pa.Array]:
    """Columns of a record batch: lists of numbers, null where an example has no soft targets."""
    import pyarrow as pa

    made: dict[str, pa.Array] = {}
    for name, kind in _COLUMNS.items():
        columns: list[np.ndarray | None] = [None if one is None else getattr(one, name) for one in targets]
        made[f"soft_{name}"] = _lists(columns, kind)
    made["soft_plain"] = pa.array([None if one is None else bool(one.plain) for one in targets], pa.bool_())
    return made


def from_batch(batch: pa.RecordBatch, row: int) -> SoftTargets | None:
    """The soft targets of one row of a batch with `to_columns`' columns."""
    import numpy as np

    plain = batch.column("soft_plain")[row].as_py()
    if plain is None:
        return None
    values = {name: batch.column(f"soft_{name}")[row].values.to_numpy() for name in _COLUMNS}
    exact = int((values["kind"] == 1).sum())
    for name in _PER_CANDIDATE:
        values[name] = values[name].reshape(exact, -1) if exact else np.zeros((0, 0), values[name].dtype)
    return SoftTargets(**values, plain=plain)


def _lists(arrays: Sequence[np.ndarray | None], kind: str) -> pa.Array:
    """A column of lists; null where there is no array."""
    import numpy as np
    import pyarrow as pa

    flat = [np.zeros(0, kind) if one is None else one.astype(kind).reshape(-1) for one in arrays]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in flat])]).astype(np.int32)
    values = pa.array(np.concatenate([np.zeros(0, kind), *flat]).astype(kind))
    missing = pa.array([one is None for one in arrays], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=missing)


@dataclass(frozen=True, slots=True)
class SoftCollator:
    """Adds the rows' soft targets, `row["soft"]`, to the batch that another collator makes of their tokens.

    Attributes:
        collate: makes padded batches.
    """

    collate: Collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch, with the key `soft_labels`."""
        plain = [{name: value for name, value in row.items() if name != "soft"} for row in rows]
        batch = self.collate(plain)
        return {**batch, SOFT: _tensors([row.get("soft") for row in rows], batch["attention_mask"])}


def _tensors(targets: Sequence[SoftTargets | None], attention_mask: Tensor) -> dict[str, Tensor]:
    """Soft targets as tensors, where the attention mask has their tokens."""
    import torch

    shape = tuple(attention_mask.shape)
    k = max((one.ids.shape[1] for one in _there(targets)), default=0)
    made = {
        "kind": torch.zeros(shape, dtype=torch.int8),
        "size": torch.zeros(shape, dtype=torch.int16),
        "logprob": torch.full(shape, float("nan")),
        "ids": torch.full((*shape, k), -1, dtype=torch.int32),
        "logprobs": torch.full((*shape, k), float("nan"), dtype=torch.float16),
        "plain": torch.zeros(shape, dtype=torch.bool),
    }
    for row, one in enumerate(targets):
        if one is None:
            continue
        at = attention_mask[row].nonzero()[:, 0]
        kind = torch.tensor(one.kind)
        for name in ("kind", "size", "logprob"):
            made[name][row, at] = torch.tensor(getattr(one, name))
        made["plain"][row, at] = one.plain
        exact = at[kind == 1]
        if not len(exact):
            continue
        made["ids"][row, exact, : one.ids.shape[1]] = torch.tensor(one.ids)
        made["logprobs"][row, exact, : one.ids.shape[1]] = torch.tensor(one.logprobs).to(torch.float16)
    return made


def _there(targets: Iterable[SoftTargets | None]) -> list[SoftTargets]:
    return [one for one in targets if one is not None]
