"""What a comparison found: plain values, written as JSON and drawn as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.types import Message

Who = Literal["base", "student", "teacher"]
Verdict = Literal["better", "no difference", "worse", "mixed", "broken"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        value: over all conversations.
        low, high: the bounds of the interval; both None where it cannot be told (one conversation).
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured.

    Attributes:
        name: as JSON has it: `perplexity`, `agreement`, `exact_match`, `chrf`, `length_ratio`, `stop_rate`,
            `tokens_per_second`; and `bits_per_byte`, where base and student have different tokenizers.
        title: for people.
        unit: `%`, `tokens/s`, …; empty for a plain number. Figures are in it: 93.5 for 93.5 %.
        better: which way is better; None where neither is.
        summary: what it says, in a sentence.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    summary: str


@dataclass(frozen=True, slots=True)
class Given:
    """One model's answer to one question, next to the teacher's.

    Attributes:
        text: without its end-of-turn marker.
        tokens: written, the marker included.
        stopped: whether it ended with the end-of-turn marker, before the token limit.
        exact: whether it is the teacher's answer, but for spaces around it.
        chrf: against the teacher's answer, 0 to 100.
        perplexity: of the teacher's answer; None where it was not measured.
        agreement: the share of the teacher's tokens that are the model's likeliest, 0 to 1; None where it was not
            measured.
    """

    text: str
    tokens: int
    stopped: bool
    exact: bool
    chrf: float
    perplexity: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of the held-out data, and what each answered.

    Attributes:
        id: the conversation's.
        source: `file:line`.
        turn: which answer of the conversation, from 0.
        messages: all that was said before.
        reference: the teacher's recorded answer.
        answers: who → the answer.
    """

    id: str
    source: str
    turn: int
    messages: Sequence[Message]
    reference: str
    answers: Mapping[Who, Given]


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's figures.

    Attributes:
        who: its part.
        model: as the user named it.
        figures: metric name → figure; a metric that was not measured for it is not there.
    """

    who: Who
    model: str
    figures: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Difference:
    """Student minus base, over the same conversations.

    Attributes:
        metric: its name.
        change: the difference and its interval.
        outcome: `better`, `worse`, or `no difference` where the interval holds 0 (or there is no better).
    """

    metric: str
    change: Interval
    outcome: Literal["better", "worse", "no difference"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge preferred, student against base, each pair shown in both orders.

    Attributes:
        model: the judge.
        wins, losses, ties: of the student, over pairs; a pair judged otherwise in the other order is a tie.
        failed: pairs without a judgement.
        win_rate: wins and half the ties, in % of the pairs that were judged.
    """

    model: str
    wins: int
    losses: int
    ties: int
    failed: int
    win_rate: Interval | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it.

    Attributes:
        run: the run folder, as it was named.
        data: file and SHA-256 of each file of held-out conversations.
        conversations, questions: how many were used; a question is an answer to be given.
        skipped: `source` (`file:line`) and `reason` of each conversation, or answer of one, that could not be used.
        metrics: what was measured, in the order to show it.
        standings: base, student and, where it was asked anew, teacher.
        differences: student minus base, a metric each.
        verdict: one word.
        reasons: why, a sentence each, the weightiest first.
        samples: every question.
        judged: where a judge was asked.
        settings: `max_tokens`, `batch_size`, `seed`, `resamples`, `confidence`, … as they were used.
        warnings: what a reader must know: prompts that were trained on, few conversations, …
    """

    run: str
    data: Sequence[Mapping[str, str]]
    conversations: int
    questions: int
    skipped: Sequence[Mapping[str, str]]
    metrics: Sequence[Metric]
    standings: Sequence[Standing]
    differences: Sequence[Difference]
    verdict: Verdict
    reasons: Sequence[str]
    samples: Sequence[Sample]
    judged: Judged | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
