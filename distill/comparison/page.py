"""A comparison as one web page: no network, no script but its search, no untrusted text that could act."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.comparison.result import (
    Comparison,
    Difference,
    Interval,
    Metric,
    ModelAnswer,
    Sample,
    Who,
    title_of,
)
from distill.errors import DistillError
from distill.files.jsonl import dumps
from distill.pages import render_page
from distill.pages.charts import curves, histogram, parts_bar, whisker
from distill.pages.text_diff import Stretch, difference
from distill.runs.run import open_run
from distill.types import Message

if TYPE_CHECKING:
    from markupsafe import Markup

SAMPLES = 60
"""Questions on the page, at most."""
_ENDS = 5  # of the worst, and of the best
LONGEST = 6000  # characters of an answer that are shown
LONGEST_MESSAGE = 2000
_REASONS = 20

_ANSWERS: tuple[Who, ...] = ("student", "base", "prompted_base", "teacher")

SIGNS = {"better": "▲", "worse": "▼", "mixed": "◆", "broken": "✕", "no difference": "="}


@dataclass(frozen=True, slots=True)
class _Line:
    """A metric's line of the table."""

    metric: Metric
    figures: Sequence[Mapping[str, str] | None]
    change: Mapping[str, str] | None
    outcome: str
    drawn: Markup | None


@dataclass(frozen=True, slots=True)
class SaidBy:
    """An answer on the page: its text marked against the teacher's, and how much of it is left out."""

    who: str
    given: ModelAnswer
    stretches: Sequence[Stretch]
    left_out: int


@dataclass(frozen=True, slots=True)
class _Question:
    """A sample on the page."""

    sample: Sample
    earlier: Sequence[tuple[str, str, int]]
    asked: tuple[str, str, int] | None
    reference: str
    left_out: int
    answers: Sequence[SaidBy]


def comparison_page(comparison: Comparison, run: Path) -> str:
    """Draw a comparison.

    Args:
        comparison: what was found.
        run: the run folder, whose training is shown where it can be read.

    Returns:
        The page's HTML.
    """
    groups = list(_groups(comparison.samples))
    shown = sum(len(questions) for _, questions in groups)
    return render_page(
        "compare",
        comparison=comparison,
        headline=comparison.headline,
        sign=SIGNS[comparison.verdict],
        signs=SIGNS,
        lines=[_line(metric, comparison) for metric in comparison.metrics],
        judged=_judged(comparison),
        prompted=_prompted(comparison),
        lengths=histogram(_lengths(comparison.samples), "Characters of the answers", "answer"),
        training=_training(run),
        groups=groups,
        left_out=len(comparison.samples) - shown,
        shown=shown,
        skipped=Counter(row["reason"] for row in comparison.skipped).most_common(_REASONS),
        reasons=_REASONS,
    )


def _line(metric: Metric, comparison: Comparison) -> _Line:
    change = next((one for one in comparison.differences if one.metric == metric.name), None)
    return _compared(metric, [one.figures.get(metric.name) for one in comparison.standings], change)


def _compared(metric: Metric, values: Sequence[Interval | None], change: Difference | None) -> _Line:
    figures = [_figure(value, metric) for value in values]
    if change is None:
        return _Line(metric, figures, None, "", None)
    outcome = change.outcome if metric.better else ""
    return _Line(metric, figures, _figure(change.change, metric, sign=True), outcome, draw_change(change, metric))


def draw_change(change: Difference, metric: Metric) -> Markup | None:
    """The change's drawing; None where neither way is better."""
    if metric.better is None:
        return None
    one = change.change
    interval = metric.format_interval(one, sign=True)
    label = f"{metric.title}: {change.outcome}, {metric.format(one.value, sign=True)}"
    label += f", interval {interval}" if interval else ""
    return whisker(one.value, one.low, one.high, metric.better, change.outcome != "no difference", label)


def _figure(figure: Interval | None, metric: Metric, sign: bool = False) -> dict[str, str] | None:
    """A figure and its interval, in words; None where there is none."""
    if figure is None:
        return None
    bounds = metric.format_interval(figure, sign)
    return {"value": metric.format(figure.value, sign=sign), "bounds": bounds}


def _prompted(comparison: Comparison) -> list[_Line]:
    """The lines of the table beside the prompted base."""
    if comparison.prompted is None:
        return []
    changes = {one.metric: one for one in comparison.prompted.differences}
    return [
        _compared(metric, [comparison.value(who, metric.name) for who in ("prompted_base", "student")], change)
        for metric in comparison.metrics
        if (change := changes.get(metric.name)) is not None
    ]


def _judged(comparison: Comparison) -> dict[str, Any] | None:
    """The judge's preferences as parts of a bar, in percent of its width."""
    judged = comparison.judged
    if judged is None:
        return None
    parts = {"student": judged.wins, "neither": judged.ties, "base": judged.losses}
    rate = judged.win_rate
    percent = Metric("win_rate", "Win rate", "%", "higher", "")
    bar = parts_bar(parts, {"student": "blue", "neither": "line", "base": "grey"})
    return {"parts": parts, "bar": bar, "rate": _figure(rate, percent)}


def _lengths(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Characters of each answer, the teacher's recorded ones first."""
    lengths = {"teacher": [len(sample.reference) for sample in samples]}
    for who in ("student", "base", "prompted_base"):
        if texts := [sample.answers[who].text for sample in samples if who in sample.answers]:
            lengths[title_of(who)] = [len(text) for text in texts]
    return lengths


def _training(run: Path) -> dict[str, Any] | None:
    """What the run folder tells of the training; None where it tells nothing."""
    try:
        opened = open_run(run)
        curve = curves(opened.losses())
        return {
            "manifest": opened.manifest,
            "report": opened.report,
            "curve": curve,
        }
    except (DistillError, KeyError, TypeError, OSError):
        return None


def _groups(samples: Sequence[Sample]) -> Iterator[tuple[str, list[_Question]]]:
    """The samples as a reader wants them: the worst, the best, then the rest, in the order of the data.

    An answer that is the teacher's is never among the worst.
    """
    order = sorted(range(len(samples)), key=lambda n: _closeness(samples[n]))
    ends = min(_ENDS, len(samples) // 3)
    worst = [n for n in order[:ends] if not _is_exact(samples[n])]
    best = [n for n in order[::-1] if n not in worst][:ends]
    rest = [n for n in range(len(samples)) if n not in worst and n not in best]
    named = (
        ("Farthest from the teacher", worst),
        ("Closest to the teacher", best),
        ("The others, in the order of the data" if ends else "In the order of the data", rest),
    )
    left = SAMPLES
    for name, numbers in named:
        if numbers[:left]:
            yield name, [_question(samples[n]) for n in numbers[:left]]
        left -= len(numbers[:left])


def _is_exact(sample: Sample) -> bool:
    student = sample.answers.get("student")
    return student is not None and student.exact


def _closeness(sample: Sample) -> tuple[float, bool]:
    student = sample.answers.get("student")
    return (-1.0, False) if student is None else (student.chrf, student.stopped)


def _question(sample: Sample) -> _Question:
    messages = [message_text(message) for message in sample.messages]
    reference = sample.reference[:LONGEST]
    answers = [
        SaidBy(
            title_of(who),
            given,
            difference(given.text[:LONGEST], reference),
            max(0, len(given.text) - LONGEST),
        )
        for who in _ANSWERS
        if (given := sample.answers.get(who)) is not None
    ]
    left_out = len(sample.reference) - len(reference)
    return _Question(sample, messages[:-1], messages[-1] if messages else None, reference, left_out, answers)


def message_text(message: Message) -> tuple[str, str, int]:
    """A message's role, its text, and how many characters are left out."""
    text = "\n".join(filter(None, [message.content, *map(dumps, message.tool_calls)]))
    return message.role, text[:LONGEST_MESSAGE], max(0, len(text) - LONGEST_MESSAGE)
