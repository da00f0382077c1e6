"""A comparison in the report of its run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from distill.comparison.result import Comparison, Interval, Metric, Sample, Who
from distill.errors import DistillError
from distill.files.atomic import whole_file
from distill.pages import write_page
from distill.pages.environment import counted
from distill.runs.run import Run
from distill.training.report import Outcome, TellingAnswer, report_page, with_comparison

_TELLING = 5
_SHOWN: tuple[Who, ...] = ("base", "student")


def refresh_report(run: Run, comparison: Comparison) -> None:
    """Keep a comparison in its run folder, and show it in the run's report and in the student's model card.

    A folder that cannot be written stays as it is.
    """
    with suppress(OSError, DistillError):
        run.keep_comparison(comparison.to_json(indent=1))
        write_page(run.paths.page, report_page(run, comparison.costs, outcome_of(comparison)))
        for card in (run.paths.card, run.paths.model / run.paths.card.name):
            if card.is_file():
                before = card.read_text(encoding="utf-8")
                with whole_file(card) as file:
                    file.write(with_comparison(before, comparison_table(comparison)))


def comparison_table(comparison: Comparison) -> str:
    """A comparison as Markdown: its verdict, and each metric with its interval."""
    lines = [
        f"{comparison.headline} On {counted(comparison.questions, 'answer')} of "
        f"{counted(comparison.conversations, 'held-out conversation')}, with 95 % confidence intervals:",
        "",
        "| | base | student | student − base |",
        "|---|---|---|---|",
    ]
    for metric in comparison.metrics:
        change = comparison.difference(metric.name)
        cells = [_cell(comparison.value(who, metric.name), metric) for who in _SHOWN]
        cells.append("" if change is None else _cell(change.change, metric, sign=True))
        lines.append(f"| {metric.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Interval | None, metric: Metric, sign: bool = False) -> str:
    if value is None:
        return "–"
    bounds = metric.format_interval(value, sign=sign)
    return metric.format(value.value, sign=sign) + (f" ({bounds})" if bounds else "")


def outcome_of(comparison: Comparison) -> Outcome:
    """What a run's report shows of a comparison."""
    return Outcome(
        comparison.verdict,
        comparison.headline,
        comparison.summary,
        comparison.reasons,
        [_answer(sample) for sample in _telling(comparison.samples)],
    )


def _answer(sample: Sample) -> TellingAnswer:
    question = (sample.messages[-1].content or "") if sample.messages else ""
    student, base = sample.answers["student"], sample.answers["base"]
    return TellingAnswer(question, sample.reference, student.text, base.text, student.exact)


def _telling(samples: Sequence[Sample]) -> list[Sample]:
    """The answers that tell most: where the student gained most on its base, and where it is farthest off."""
    both = [one for one in samples if "student" in one.answers and "base" in one.answers]
    gained = sorted(both, key=lambda one: one.answers["base"].chrf - one.answers["student"].chrf)
    wrong = [one for one in both if not one.answers["student"].exact]
    farthest = sorted(wrong, key=lambda one: one.answers["student"].chrf)[:2]
    chosen = [one for one in gained if one not in farthest][: _TELLING - len(farthest)]
    return [*chosen, *farthest]
