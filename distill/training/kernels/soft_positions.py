"""Soft targets of a batch, at the positions that count: which they are, and how they are cut into chunks of logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from distill.types import SoftBatch

if TYPE_CHECKING:
    from torch import Tensor


def select_soft(soft: Mapping[str, Tensor] | SoftBatch, keep: Tensor) -> SoftBatch:
    """Keep the soft targets of the positions that count.

    Args:
        soft: tensors of a batch, (rows, length, …), each value at the token that it is of.
        keep: (rows, length), the positions whose next label counts.

    Returns:
        The targets of these positions' next tokens, in their order. A chunk of which a token does not count is none.
    """
    import torch

    if isinstance(soft, SoftBatch):
        return soft
    moved = {name: torch.roll(values.to(keep.device), -1, dims=1) for name, values in soft.items()}
    size = moved["size"].long()
    counted = torch.nn.functional.pad(keep.long().cumsum(1), (1, 0))
    ends = torch.arange(1, keep.shape[1] + 1, device=keep.device).expand_as(size)
    starts = (ends - size).clamp_min(0)
    inside = counted.gather(1, ends) - counted.gather(1, starts)
    moved["size"] = torch.where(inside == size, size, 0).to(torch.int16)
    return SoftBatch(**{name: values[keep] for name, values in moved.items()})


def cut_chunks(count: int, rows: int, soft: Mapping[str, Tensor] | SoftBatch | None) -> list[int]:
    """Cut positions into chunks of logits, none of which ends within a chunk of the soft targets.

    Args:
        count: positions.
        rows: the most of them in a chunk, unless a chunk of the soft targets is longer.
        soft: their soft targets, if they have any.

    Returns:
        The chunks' sizes; one, of 0, where there is no position.
    """
    if count <= rows:
        return [count]
    free = _free_cuts(soft) if isinstance(soft, SoftBatch) else None
    sizes, start = [], 0
    while start < count:
        stop = min(start + rows, count)
        if free is not None and stop < count:
            earlier = next((cut for cut in range(stop, start, -1) if free[cut]), None)
            stop = earlier or next((cut for cut in range(stop, count) if free[cut]), count)
        sizes.append(stop - start)
        start = stop
    return sizes


def _free_cuts(soft: SoftBatch) -> list[bool] | None:
    """Before which position a cut is free; None: before all."""
    long = (soft.size > 1).nonzero()[:, 0].tolist()
    if not long:
        return None
    free = [True] * (len(soft.size) + 1)
    for end in long:
        for cut in range(end - int(soft.size[end]) + 2, end + 1):
            free[cut] = False
    return free
