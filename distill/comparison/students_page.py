"""Several students on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.comparison.page import LONGEST, SIGNS, SaidBy, draw_change, message_text
from distill.comparison.result import ModelAnswer, ModelMetrics, Sample
from distill.comparison.several import Comparisons
from distill.pages import render_page
from distill.pages.text_diff import difference

_QUESTIONS = 40  # on the page, at most

_LOOKS: Mapping[str, str] = {"better": "good", "no difference": "even"}


@dataclass(frozen=True, slots=True)
class _Question:
    """A question, and every student's answer to it."""

    source: str
    asked: tuple[str, str, int] | None
    reference: str
    left_out: int
    answers: Sequence[SaidBy]


def students_page(found: Comparisons) -> str:
    """Draw several students.

    Returns:
        The page's HTML.
    """
    questions = _questions(found)
    bases: dict[str, ModelMetrics] = {}
    for one in found.comparisons:
        for model in one.standings:
            if model.who in ("base", "prompted_base"):
                bases.setdefault(f"{model.model} {model.figures}", model)
    warnings = {f"{one.run}: {text}": None for one in found.comparisons for text in one.warnings}
    return render_page(
        "students",
        found=found,
        metrics={metric.name: metric for metric in found.metrics},
        bases=list(bases.values()),
        warnings=list(warnings),
        signs=SIGNS,
        looks={verdict: _LOOKS.get(verdict, "bad") for verdict in SIGNS},
        drawn=draw_change,
        questions=questions[:_QUESTIONS],
        left_out=len(questions[_QUESTIONS:]),
    )


def _questions(found: Comparisons) -> list[_Question]:
    """The questions that all were asked, those first on which they differ most."""
    samples = [{(one.source, one.turn): one for one in comparison.samples} for comparison in found.comparisons]
    places = [place for place in samples[0] if all(place in others for others in samples)]
    spread = {place: _spread([others[place] for others in samples]) for place in places}
    made = []
    for place in sorted(places, key=lambda place: -spread[place]):
        sample = samples[0][place]
        reference = sample.reference[:LONGEST]
        answers = []
        for comparison, others in zip(found.comparisons, samples, strict=True):
            answer = others[place].answers.get("student")
            if answer is not None:
                answers.append(_said_by(comparison.run, answer, reference))
        asked = message_text(sample.messages[-1]) if sample.messages else None
        made.append(_Question(sample.source, asked, reference, len(sample.reference) - len(reference), answers))
    return made


def _said_by(who: str, answer: ModelAnswer, reference: str) -> SaidBy:
    left_out = max(0, len(answer.text) - LONGEST)
    return SaidBy(who, answer, difference(answer.text[:LONGEST], reference), left_out)


def _spread(samples: Sequence[Sample]) -> float:
    scores = [one.answers["student"].chrf for one in samples if "student" in one.answers]
    return max(scores, default=0.0) - min(scores, default=0.0)
