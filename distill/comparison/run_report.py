"""A comparison in the report of its run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from distill.comparison.result import Comparison, Sample
from distill.errors import DistillError
from distill.pages import write_page
from distill.runs.run import Run
from distill.training.report import Outcome, TellingAnswer, report_page

_TELLING = 5


def refresh_report(run: Run, comparison: Comparison) -> None:
    """Keep a comparison in its run folder, and show it in the run's report; a folder that cannot be written stays."""
    with suppress(OSError, DistillError):
        run.keep_comparison(comparison.to_json(indent=1))
        write_page(run.paths.page, report_page(run, comparison.costs, outcome_of(comparison)))


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
