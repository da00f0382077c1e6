"""Charts: numbers in, SVG out. Colours are the page's, so that they suit light and dark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distill.pages.environment import macro

if TYPE_CHECKING:
    from markupsafe import Markup

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 240
_POINTS = 600
"""The most points that are drawn: a longer curve is shown by the means of equal stretches."""

_HALF = 100.0  # from the zero line to the edge of a change's drawing

BINS = 24
_BIN_WIDTH, _BIN_HEIGHT = 26, 56
_COVERED = 0.98  # the fraction of all values that the axis of a histogram covers


def curves(series: Mapping[str, Points], what: str = "Loss") -> Markup | None:
    """Curves over one axis of steps, each with its name; the vertical axis begins at 0.

    Args:
        series: name → (step, value) in order; the first is drawn in full, the others as lines.
        what: the values, for readers of the page who do not see it.

    Returns:
        None where no series has two points.
    """
    drawn = {name: _thinned(points) for name, points in series.items() if len(points) > 1}
    if not drawn:
        return None
    top = max(value for points in drawn.values() for _, value in points) or 1.0
    first = min(points[0][0] for points in drawn.values())
    last = max(points[-1][0] for points in drawn.values())
    across = (last - first) or 1
    lines = []
    for name, points in drawn.items():
        places = [
            (round((step - first) / across * _WIDTH, 1), round((1 - value / top) * _HEIGHT, 1))
            for step, value in points
        ]
        path = " ".join(f"{'L' if n else 'M'}{x} {y}" for n, (x, y) in enumerate(places))
        area = f"{path} L{places[-1][0]} {_HEIGHT} L{places[0][0]} {_HEIGHT} Z"
        lines.append({"name": name, "path": path, "area": area, "last": places[-1]})
    ends = {name: (series[name][0][1], series[name][-1][1]) for name in drawn}
    told = "; ".join(f"{name} from {start:.3f} to {end:.3f}" for name, (start, end) in ends.items())
    ticks = [{"y": round(_HEIGHT * part), "value": top * (1 - part)} for part in (0, 0.25, 0.5, 0.75, 1)]
    size = {"width": _WIDTH, "height": _HEIGHT}
    return macro("charts", "curves", lines, ticks, size, int(first), int(last), f"{what}: {told}")


def _thinned(points: Points) -> Points:
    size = -(-len(points) // _POINTS)
    stretches = [points[n : n + size] for n in range(0, len(points), size)]
    return [(one[-1][0], sum(value for _, value in one) / len(one)) for one in stretches]


def whisker(
    value: float, low: float | None, high: float | None, better: Literal["higher", "lower"], sure: bool, label: str
) -> Markup:
    """A change and its interval about the zero line, on a scale of its own; to the right is better.

    Args:
        value, low, high: the change, and its interval where there is one.
        better: which way is better.
        sure: whether the interval excludes no change; else the dot is hollow.
        label: for readers of the page who do not see it.
    """
    bounds = [bound for bound in (low, high) if bound is not None]
    most = max(map(abs, (value, *bounds))) or 1.0
    scale = 0.92 * _HALF / most * (-1 if better == "lower" else 1)
    ends = sorted(round(bound * scale, 1) for bound in bounds)
    interval = ends if len(ends) == 2 else None
    return macro("charts", "whisker", round(value * scale, 1), interval, _HALF, sure and interval is not None, label)


@dataclass(frozen=True, slots=True)
class Bins:
    """Values counted in bins of equal width.

    Attributes:
        width: of a bin; the first begins at 0.
        counts: name → values per bin; the last bin also holds everything beyond it.
        longer: whether there is anything beyond it.
    """

    width: int
    counts: Mapping[str, Sequence[int]]
    longer: bool


def count_bins(series: Mapping[str, Sequence[int]]) -> Bins | None:
    """Count values in `BINS` bins that cover 98 % of them; None without a value."""
    everything = sorted(value for values in series.values() for value in values)
    if not everything:
        return None
    covered = everything[min(len(everything) - 1, int(_COVERED * len(everything)))]
    width = max(1, -(-(covered + 1) // BINS))
    counts = {}
    for name, values in series.items():
        row = [0] * BINS
        for value in values:
            row[min(value // width, BINS - 1)] += 1
        counts[name] = row
    return Bins(width, counts, everything[-1] >= width * BINS)


def histogram(series: Mapping[str, Sequence[int]], what: str, noun: str) -> Markup | None:
    """Histograms over one axis, one row per series, each with its median.

    Args:
        series: name → values.
        what: the values, for readers of the page who do not see it.
        noun: what is counted.

    Returns:
        None without a value.
    """
    bins = count_bins(series)
    if bins is None:
        return None
    rows = []
    for name, counts in bins.counts.items():
        values = series[name]
        if not values:
            continue
        most, middle = max(counts), statistics.median(values)
        bars = [
            {"x": n * _BIN_WIDTH, "height": round(_BIN_HEIGHT * count / most, 1), "count": count, "low": n * bins.width}
            for n, count in enumerate(counts)
            if count
        ]
        at = round(min(middle / bins.width, BINS - 0.5) * _BIN_WIDTH, 1)
        rows.append({"name": name, "bars": bars, "median": middle, "at": at, "longest": max(values)})
    ticks = [{"x": n * _BIN_WIDTH, "label": f"{n * bins.width:,}"} for n in range(0, BINS, 6)]
    last = f"{bins.width * BINS:,}" + (" and more" if bins.longer else "")
    size = {"width": BINS * _BIN_WIDTH, "bin": _BIN_WIDTH, "height": _BIN_HEIGHT, "step": bins.width}
    return macro("charts", "histogram", rows, ticks, last, size, what, noun)


def parts_bar(parts: Mapping[str, int], colours: Mapping[str, str]) -> Markup | None:
    """One bar, divided in proportion; None where there is nothing to divide.

    Args:
        parts: name → count, from left to right.
        colours: name → a colour of the page, e.g. `blue`.
    """
    total = sum(parts.values())
    if not total:
        return None
    at, drawn = 0.0, []
    for name, count in parts.items():
        width = 100 * count / total
        drawn.append({"x": round(at, 2), "width": round(width, 2), "colour": colours[name]})
        at += width
    return macro("charts", "parts_bar", drawn, ", ".join(f"{name} {count}" for name, count in parts.items()))
