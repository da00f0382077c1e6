"""The error for rows that are longer than the student takes."""

from __future__ import annotations

from distill.dataset.table import Examples
from distill.errors import DistillError


def too_long(examples: Examples, max_length: int, most: int | None) -> DistillError:
    """Name the longest rows, and what keeps how many of them.

    Args:
        examples: all rows.
        max_length: what some are longer than.
        most: the most tokens that `max_length` may be; None: no limit.
    """
    lengths = examples.lengths
    longest = [examples[row] for row in lengths.argsort(kind="stable")[::-1][:3]]
    counts = sorted(lengths.tolist())
    over = sum(length > max_length for length in counts)
    keeps = {counts[min(len(counts) - 1, -(-len(counts) * share // 100) - 1)]: share for share in (95, 99, 100)}
    possible = {length: share for length, share in keeps.items() if most is None or length <= most}
    keep = ", ".join(f"{length} keeps {share} %" for length, share in possible.items())
    named = ", ".join(f"{example.source or example.id} ({len(example.input_ids)} tokens)" for example in longest)
    return DistillError(
        f"{over} of {len(counts)} rows are longer than {max_length} tokens; the longest: {named}",
        (f"--max-length: {keep}; or " if keep else f"the student takes no more than {most}: ")
        + "--overlong drop, or --overlong truncate",
    )
