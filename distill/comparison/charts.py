"""Figures as coordinates: the dot and whisker of a change, and the lengths of answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.comparison.result import Difference, Metric

HALF = 100.0
"""From the zero line to the edge of a change's drawing."""
BINS = 24
BIN_WIDTH, BIN_HEIGHT = 26, 56


@dataclass(frozen=True, slots=True)
class Whisker:
    """A change, from -`HALF` to `HALF` about the zero line: to the right is better, where either way is.

    Attributes:
        dot: where the change is.
        low, high: the ends of its interval, from left to right; None where there is none.
    """

    dot: float
    low: float | None
    high: float | None


def whisker(one: Difference, metric: Metric) -> Whisker:
    """Draw a change on a scale of its own."""
    change = one.change
    bounds = [bound for bound in (change.low, change.high) if bound is not None]
    most = max(map(abs, (change.value, *bounds))) or 1.0
    scale = 0.92 * HALF / most * (-1 if metric.better == "lower" else 1)
    ends = sorted(round(bound * scale, 1) for bound in bounds)
    low, high = (ends[0], ends[-1]) if len(ends) == 2 else (None, None)
    return Whisker(round(change.value * scale, 1), low, high)


def histograms(lengths: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """Lengths of answers, each model's in a row of its own over one axis.

    The axis ends where 98 % of all are; the last bin holds what is longer.

    Args:
        lengths: who → characters of each answer.

    Returns:
        `rows` (who, bars with their counts, median), `width` of a bin in characters, and the axis' ticks; None without
        an answer.
    """
    everything = sorted(length for row in lengths.values() for length in row)
    if not everything:
        return None
    longest = everything[min(len(everything) - 1, int(0.98 * len(everything)))]
    width = max(1, -(-(longest + 1) // BINS))
    rows = []
    for who, values in lengths.items():
        if not values:
            continue
        counts = [0] * BINS
        for value in values:
            counts[min(value // width, BINS - 1)] += 1
        most, middle = max(counts), statistics.median(values)
        rows.append(
            {
                "who": who,
                "bars": [
                    {"x": n * BIN_WIDTH, "height": round(BIN_HEIGHT * count / most, 1), "count": count}
                    for n, count in enumerate(counts)
                    if count
                ],
                "median": middle,
                "at": round(min(middle / width, BINS - 0.5) * BIN_WIDTH, 1),
                "longest": max(values),
            }
        )
    ticks = [{"x": n * BIN_WIDTH, "label": f"{n * width:,}"} for n in range(0, BINS, 6)]
    longer = everything[-1] >= width * BINS
    return {"rows": rows, "bin": width, "ticks": ticks, "longer": longer, "last": f"{width * BINS:,}"}
