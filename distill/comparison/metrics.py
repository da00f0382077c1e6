"""The metrics: what each means, and how they are computed from answers and readings, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.comparison.bootstrap import interval, resampled_sums
from distill.comparison.measure import Reading
from distill.comparison.questions import Tokens
from distill.comparison.result import Difference, Interval, Metric, ModelAnswer, Outcome

if TYPE_CHECKING:
    from numpy import ndarray

PROMPT_TOKENS = "prompt_tokens"

METRICS = (
    Metric(
        "perplexity",
        "Perplexity",
        "",
        "lower",
        "Of the teacher's answers: 1 is no surprise; at N, the model hesitates between N equally likely tokens.",
        "How surprising the teacher's answers are",
    ),
    Metric(
        "bits_per_byte",
        "Bits per byte",
        "",
        "lower",
        "What the model needs to write the teacher's answers down. It compares models with different tokenizers.",
        "How surprising the teacher's answers are",
    ),
    Metric(
        "kl_to_teacher",
        "KL to the teacher",
        "",
        "lower",
        "Nats per token by which the teacher finds its answers likelier than the model does, estimated from the tokens "
        "it wrote. 0: the teacher's own distribution.",
    ),
    Metric(
        "agreement",
        "Next-token agreement",
        "%",
        "higher",
        "The tokens of the teacher's answers that are the model's first choice.",
        "How often it would write the teacher's next word",
    ),
    Metric(
        "exact_match",
        "Exact match",
        "%",
        "higher",
        "Answers that are equal to the teacher's, apart from spaces around them.",
        "The same answer as the teacher",
    ),
    Metric(
        "chrf",
        "chrF",
        "",
        "higher",
        "Character n-grams that an answer shares with the teacher's; 100 is the same text. Mean of all answers.",
        "How similar its answers are to the teacher's",
    ),
    Metric(
        "length_ratio",
        "Length ratio",
        "",
        None,
        "Characters of all answers, divided by those of the teacher's; 1 is the same length.",
        "How long its answers are, beside the teacher's",
    ),
    Metric(
        "stop_rate",
        "Stop rate",
        "%",
        "higher",
        "Answers that end with the end-of-turn marker, where the teacher's is within the token limit.",
        "How often it finishes its answer",
    ),
    Metric(
        PROMPT_TOKENS,
        "Prompt tokens",
        "",
        "lower",
        "Tokens before its answer: the question, and the prompt of the prompted base. Mean of all questions.",
        "How much it has to read for an answer",
    ),
    Metric(
        "tokens_per_second",
        "Speed",
        "tokens/s",
        "higher",
        "Tokens of its answers per second, in batches, on this machine at that time.",
        "How fast it answers",
    ),
)

Columns = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Metric → a numerator and a denominator per question. The metric is the quotient of their sums, transformed."""

_PER_TOKEN = {
    "perplexity",
    "agreement",
    "kl_to_teacher",
    PROMPT_TOKENS,
}  # comparable between models of the same tokens only


def chrf_of(pairs: Iterable[tuple[str, str]]) -> list[float]:
    """chrF (sacrebleu, character 6-grams, no words) of each answer against its reference, 0 to 100."""
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    return [
        100.0 if answer.strip() == reference.strip() else chrf.sentence_score(answer, [reference]).score
        for answer, reference in pairs
    ]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer before it is compared: its text, its number of tokens, and whether it ended by itself."""

    text: str
    tokens: int
    stopped: bool


def score_answers(
    said: Sequence[Said],
    references: Sequence[str],
    readings: Sequence[Reading] | None = None,
    counted: Sequence[int] = (),
) -> list[ModelAnswer]:
    """Compare answers with the teacher's.

    Args:
        said: the answers.
        references: the teacher's answers.
        readings: of the teacher's answers by this model.
        counted: how many of their tokens count.
    """
    chrf = chrf_of(zip((one.text for one in said), references, strict=True))
    answers = []
    for n, one in enumerate(said):
        perplexity = agreement = None
        if readings is not None:
            perplexity = _finite(perplexity_of(readings[n].losses[: counted[n]]))
            agreement = sum(readings[n].hits[: counted[n]]) / counted[n] if counted[n] else None
        exact = one.text.strip() == references[n].strip()
        answers.append(ModelAnswer(one.text, one.tokens, one.stopped, exact, chrf[n], perplexity, agreement))
    return answers


def perplexity_of(losses: Sequence[float]) -> float:
    """The perplexity of tokens; nan for none, inf where it has no number."""
    try:
        return math.exp(sum(losses) / len(losses)) if losses else math.nan
    except OverflowError:
        return math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def answer_columns(answers: Sequence[ModelAnswer | None], references: Sequence[str], fits: Sequence[bool]) -> Columns:
    """What answers add to the metrics.

    Args:
        answers: one per question; None where there is no answer.
        references: the teacher's answers.
        fits: whether the teacher's answer is within the token limit, so that one must be able to stop.
    """
    exact, chrf, lengths, stops = [], [], [], []
    there, expected_lengths, expected_stops = [], [], []
    for answer, reference, fit in zip(answers, references, fits, strict=True):
        there.append(float(answer is not None))
        exact.append(100.0 if answer is not None and answer.exact else 0.0)
        chrf.append(answer.chrf if answer is not None else 0.0)
        lengths.append(float(len(answer.text)) if answer is not None else 0.0)
        expected_lengths.append(float(len(reference)) if answer is not None else 0.0)
        stops.append(100.0 if answer is not None and answer.stopped and fit else 0.0)
        expected_stops.append(1.0 if answer is not None and fit else 0.0)
    return {
        "exact_match": (exact, there),
        "chrf": (chrf, there),
        "length_ratio": (lengths, expected_lengths),
        "stop_rate": (stops, expected_stops),
    }


def reading_columns(readings: Sequence[Reading], tokens: Sequence[Tokens], counted: Sequence[int]) -> Columns:
    """What a model's readings of the teacher's answers add to the metrics.

    Args:
        readings: one per question.
        tokens: the questions and the teacher's answers, in the model's tokens.
        counted: how many tokens of each answer count.
    """
    losses, hits, bits, sizes = [], [], [], []
    for reading, one, count in zip(readings, tokens, counted, strict=True):
        losses.append(sum(reading.losses[:count]))
        hits.append(100.0 * sum(reading.hits[:count]))
        bits.append(sum(reading.losses[: len(one.answer) - one.marker]) / math.log(2))
        sizes.append(float(len(one.text.encode())))
    return {
        "perplexity": (losses, counted),
        "agreement": (hits, counted),
        "bits_per_byte": (bits, sizes),
    }


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of one model: its value, and its value in each resample of the conversations."""

    value: float
    draws: ndarray


class Measured:
    """The metrics of several models, on the same questions and the same resamples.

    Args:
        columns: model → what its answers add to each metric.
        conversations: the number of each question's conversation: the unit that is resampled.
        seed: for the resamples.
    """

    def __init__(self, columns: Mapping[str, Columns], conversations: Sequence[int], seed: int):
        import numpy

        owners, rows = numpy.unique(conversations, return_inverse=True)
        names = [(model, metric) for model in columns for metric in columns[model]]
        flat = numpy.array([part for model, metric in names for part in columns[model][metric]], dtype=float).T
        sums = numpy.zeros((len(owners), flat.shape[1]))
        numpy.add.at(sums, rows, flat)
        draws = resampled_sums(sums, seed)
        total = sums.sum(0, keepdims=True)
        self._conversations = len(owners)
        self._values: dict[tuple[str, str], Value] = {}
        for n, name in enumerate(names):
            pair = slice(2 * n, 2 * n + 2)
            value = float(_quotient(total[:, pair], name[1])[0])
            if math.isfinite(value):
                self._values[name] = Value(value, _quotient(draws[:, pair], name[1]))

    def metrics_of(self, model: str) -> dict[str, Interval]:
        """A model's metrics with their intervals; one that is no finite number is left out."""
        return {
            metric: interval(one.value, one.draws, self._conversations)
            for (who, metric), one in self._values.items()
            if who == model
        }

    def differences(self, model: str, other: str, same_tokens: bool) -> list[Difference]:
        """One model minus another, one per metric that both have and that can be compared.

        Args:
            model, other: their names.
            same_tokens: whether both read the same tokens, so that metrics per token can be compared.
        """
        found = []
        for metric in METRICS:
            ours, theirs = (self._values.get((who, metric.name)) for who in (model, other))
            if ours is None or theirs is None or (metric.name in _PER_TOKEN and not same_tokens):
                continue
            change = interval(ours.value - theirs.value, ours.draws - theirs.draws, self._conversations)
            found.append(Difference(metric.name, change, _outcome(metric, change)))
        return found


def _quotient(sums: ndarray, metric: str) -> ndarray:
    """The metric of each row of sums."""
    import numpy

    with numpy.errstate(all="ignore"):
        quotient: ndarray = sums[:, 0] / sums[:, 1]
        return numpy.exp(quotient) if metric == "perplexity" else quotient


def _outcome(metric: Metric, change: Interval) -> Outcome:
    if metric.better is None or change.low is None or change.high is None or change.low <= 0 <= change.high:
        return "no difference"
    return "better" if (change.low > 0) == (metric.better == "higher") else "worse"
