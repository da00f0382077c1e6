"""The metrics: what each says, and how answers and readings become figures with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.comparison.bootstrap import interval, resampled_sums
from distill.comparison.measure import Reading
from distill.comparison.questions import Tokens
from distill.comparison.result import Difference, Given, Interval, Metric, Who

if TYPE_CHECKING:
    from numpy import ndarray

METRICS = (
    Metric(
        "perplexity",
        "Perplexity",
        "",
        "lower",
        "Of the teacher's answers: between how many tokens of equal odds the model wavers at each. 1: it is sure.",
    ),
    Metric(
        "bits_per_byte",
        "Bits per byte",
        "",
        "lower",
        "What the model needs to write the teacher's answers down. It compares models of different tokenizers.",
    ),
    Metric(
        "agreement",
        "Next-token agreement",
        "%",
        "higher",
        "How many tokens of the teacher's answers are the model's likeliest ones there.",
    ),
    Metric("exact_match", "Exact match", "%", "higher", "Answers that are the teacher's, but for spaces around them."),
    Metric(
        "chrf",
        "chrF",
        "",
        "higher",
        "How many character n-grams an answer shares with the teacher's: 100 for the same text, mean of all answers.",
    ),
    Metric(
        "length_ratio", "Length ratio", "", None, "Characters of all answers, of those of the teacher's. 1: as long."
    ),
    Metric(
        "stop_rate",
        "Stop rate",
        "%",
        "higher",
        "Answers that end with the end-of-turn marker, where the teacher's is within the token limit.",
    ),
    Metric(
        "tokens_per_second",
        "Speed",
        "tokens/s",
        "higher",
        "Tokens of its answers a second, in batches, on this machine at that time.",
    ),
)

Columns = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Metric → a numerator and a denominator a question. The figure is the quotient of their sums, transformed."""

_ALIKE_ONLY = {"perplexity", "agreement"}  # per token: comparable between models of the same tokens only


def chrf_of(pairs: Iterable[tuple[str, str]]) -> list[float]:
    """chrF (sacrebleu, character 6-grams, no words) of each answer against its reference, 0 to 100."""
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    return [
        100.0 if answer.strip() == reference.strip() else chrf.sentence_score(answer, [reference]).score
        for answer, reference in pairs
    ]


def given_answers(
    texts: Sequence[str],
    tokens: Sequence[int],
    stopped: Sequence[bool],
    references: Sequence[str],
    readings: Sequence[Reading] | None = None,
    counted: Sequence[int] = (),
) -> list[Given]:
    """Compare answers with the teacher's.

    Args:
        texts, tokens, stopped: of the answers, see `Given`.
        references: the teacher's answers.
        readings: of the teacher's answers by this model.
        counted: how many of their tokens count.
    """
    chrf = chrf_of(zip(texts, references, strict=True))
    given = []
    for n, text in enumerate(texts):
        perplexity = agreement = None
        if readings is not None:
            perplexity = _finite(perplexity_of(readings[n].losses[: counted[n]]))
            agreement = sum(readings[n].hits[: counted[n]]) / counted[n] if counted[n] else None
        exact = text.strip() == references[n].strip()
        given.append(Given(text, tokens[n], stopped[n], exact, chrf[n], perplexity, agreement))
    return given


def perplexity_of(losses: Sequence[float]) -> float:
    """The perplexity of tokens; nan for none, inf where it has no number."""
    try:
        return math.exp(sum(losses) / len(losses)) if losses else math.nan
    except OverflowError:
        return math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def answer_columns(given: Sequence[Given | None], references: Sequence[str], fits: Sequence[bool]) -> Columns:
    """What answers add to the metrics.

    Args:
        given: a question each; None where there is no answer.
        references: the teacher's answers.
        fits: whether the teacher's answer is within the token limit, so that one must be able to stop.
    """
    there = [float(one is not None) for one in given]
    return {
        "exact_match": ([100.0 * bool(one and one.exact) for one in given], there),
        "chrf": ([one.chrf if one else 0.0 for one in given], there),
        "length_ratio": (
            [float(len(one.text)) if one else 0.0 for one in given],
            [len(text) * is_there for text, is_there in zip(references, there, strict=True)],
        ),
        "stop_rate": (
            [100.0 * bool(one and one.stopped and fit) for one, fit in zip(given, fits, strict=True)],
            [is_there * fit for is_there, fit in zip(there, fits, strict=True)],
        ),
    }


def reading_columns(readings: Sequence[Reading], asked: Sequence[Tokens], counted: Sequence[int]) -> Columns:
    """What a model's readings of the teacher's answers add to the metrics."""
    texts = [
        (sum(reading.losses[: len(tokens.answer) - tokens.marker]) / math.log(2), len(tokens.text.encode()))
        for reading, tokens in zip(readings, asked, strict=True)
    ]
    pairs = list(zip(readings, counted, strict=True))
    return {
        "perplexity": ([sum(reading.losses[:count]) for reading, count in pairs], counted),
        "agreement": ([100.0 * sum(reading.hits[:count]) for reading, count in pairs], counted),
        "bits_per_byte": ([bits for bits, _ in texts], [size for _, size in texts]),
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a comparison.

    Attributes:
        standings: who → metric → figure.
        differences: student minus base.
    """

    standings: Mapping[Who, Mapping[str, Interval]]
    differences: Sequence[Difference]


def figures_of(columns: Mapping[Who, Columns], conversations: Sequence[int], seed: int, same_tokens: bool) -> Figures:
    """Compute all figures, their intervals and the differences, on the same resamples.

    Args:
        columns: of each model.
        conversations: of each question: the number of its conversation.
        seed: of the resamples.
        same_tokens: whether base and student read the same tokens.
    """
    import numpy

    owners, rows = numpy.unique(conversations, return_inverse=True)
    names = [(who, metric) for who in columns for metric in columns[who]]
    flat = numpy.array([part for who, metric in names for part in columns[who][metric]], dtype=float).T
    sums = numpy.zeros((len(owners), flat.shape[1]))
    numpy.add.at(sums, rows, flat)
    draws = resampled_sums(sums, seed)
    values, drawn = {}, {}
    for n, name in enumerate(names):
        pair = slice(2 * n, 2 * n + 2)
        value = _quotient(sums.sum(0, keepdims=True)[:, pair], name[1])[0]
        if numpy.isfinite(value):
            values[name], drawn[name] = value, _quotient(draws[:, pair], name[1])
    standings: dict[Who, dict[str, Interval]] = {who: {} for who in columns}
    for (who, metric), value in values.items():
        standings[who][metric] = interval(value, drawn[who, metric], len(owners))
    differences = []
    for metric in METRICS:
        student, base = ("student", metric.name), ("base", metric.name)
        if student in values and base in values and (same_tokens or metric.name not in _ALIKE_ONLY):
            change = interval(values[student] - values[base], drawn[student] - drawn[base], len(owners))
            differences.append(Difference(metric.name, change, _outcome(metric, change)))
    return Figures(standings, differences)


def _quotient(sums: ndarray, metric: str) -> ndarray:
    """Each row's figure."""
    import numpy

    with numpy.errstate(all="ignore"):
        quotient = sums[:, 0] / sums[:, 1]
        return numpy.exp(quotient) if metric == "perplexity" else quotient


def _outcome(metric: Metric, change: Interval) -> str:
    if metric.better is None or change.low is None or change.high is None or change.low <= 0 <= change.high:
        return "no difference"
    return "better" if (change.low > 0) == (metric.better == "higher") else "worse"
