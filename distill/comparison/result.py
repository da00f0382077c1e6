"""The result of a comparison: plain values, written as JSON and drawn as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distill.collection.costs import Cost
from distill.pages import fragment
from distill.types import Message

if TYPE_CHECKING:
    import pandas

Who = Literal["base", "prompted_base", "student", "teacher"]
Verdict = Literal["better", "no difference", "worse", "mixed", "broken"]
Outcome = Literal["better", "worse", "no difference"]


_COMPARED: tuple[Who, ...] = ("student", "base")

_OFTEN = 0.2
"""The fraction of answers equal to the teacher's above which counting them tells more than their similarity."""


def title_of(who: Who) -> str:
    """A model's part as people read it."""
    return who.replace("_", " ")


VERDICTS: Mapping[Verdict, str] = {
    "better": "The student is better than its base.",
    "no difference": "No difference between the student and its base.",
    "worse": "The student is worse than its base.",
    "mixed": "The student is better than its base in one way, and worse in another.",
    "broken": "The student is broken.",
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric's value with its bootstrap confidence interval.

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
            `tokens_per_second`; `prompt_tokens`, where the base was also asked with the teacher's prompt;
            `bits_per_byte`, where base and student have different tokenizers; and both it and `kl_to_teacher` where
            held-out rows carry the teacher's log probabilities.
        title: for people.
        unit: `%`, `tokens/s`, …; empty for a plain number. Figures are in it: 93.5 for 93.5 %.
        better: which way is better; None where neither is.
        summary: what it means, in a sentence.
        plain: what it measures, in words that need no explanation.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    summary: str
    plain: str = ""

    def format(self, value: float, sign: bool = False) -> str:
        """A value, or a change, for people."""
        if self.unit:
            text = f"{value:+.1f}" if sign else f"{value:.1f}"
            return f"{text} {self.unit}" if self.unit == "%" else text
        digits = 2 if abs(value) >= 0.1 or not value else 3
        if self.name == "chrf" or abs(value) >= 100:
            digits = 1
        return f"{value:{'+' if sign else ''},.{digits}f}"

    def format_interval(self, interval: Interval, sign: bool = False) -> str:
        """`-1.2 to +3.4`; empty where there is no interval."""
        if interval.low is None or interval.high is None:
            return ""
        return " to ".join(self.format(bound, sign).removesuffix(" %") for bound in (interval.low, interval.high))


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One model's answer to one question, beside the teacher's.

    Attributes:
        text: without its end-of-turn marker.
        tokens: written, the marker included.
        stopped: whether it ended with the end-of-turn marker, before the token limit.
        exact: whether it is the teacher's answer, but for spaces around it.
        chrf: against the teacher's answer, 0 to 100.
        perplexity: of the teacher's answer; None where it was not measured.
        agreement: the fraction of the teacher's tokens that are the model's likeliest, 0 to 1; None where it was not
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
    answers: Mapping[Who, ModelAnswer]


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One model's metrics.

    Attributes:
        who: its part.
        model: as the user named it.
        figures: metric name → value; a metric that was not measured for it is absent.
        seconds: what its answers took; None where it was not measured.
        parameters: its number of weights; None where it is not known.
    """

    who: Who
    model: str
    figures: Mapping[str, Interval]
    seconds: float | None = None
    parameters: int | None = None

    @property
    def title(self) -> str:
        """Its part as people read it."""
        return title_of(self.who)


@dataclass(frozen=True, slots=True)
class Difference:
    """Student minus another model, over the same conversations.

    Attributes:
        metric: its name.
        change: the difference and its interval.
        outcome: `better`, `worse`, or `no difference` where the interval holds 0 (or there is no better).
    """

    metric: str
    change: Interval
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Judgement:
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
class PromptedBase:
    """The student compared with its base when the base gets the prompt that only the teacher saw.

    Attributes:
        verdict: by the rule that decides between student and base; it knows no `broken`.
        headline: the verdict as a sentence, with the prompt tokens that the student saves.
        fewer_prompt_tokens: how many fewer prompt tokens the student reads, in %; None where the tokenizers differ.
        differences: student minus prompted base, one per metric that can be compared.
        without_prompt: how many of the questions have no such prompt, and were asked as they are.
    """

    verdict: Verdict
    headline: str
    fewer_prompt_tokens: float | None
    differences: Sequence[Difference]
    without_prompt: int


@dataclass(frozen=True)
class Comparison:
    """A student compared with its base and its teacher. In a notebook it shows its verdict and metrics.

    Attributes:
        run: the run folder, as it was named.
        data: name and SHA-256 of each source of held-out conversations.
        conversations, questions: number of those that were used; a question is an answer to be given.
        skipped: `source` (`file:line`) and `reason` of each conversation, or answer of one, that could not be used.
        metrics: what was measured, in the order to show it.
        standings: base, prompted base if asked for, student and, where it was asked again, teacher.
        differences: student minus base, one per metric.
        verdict: one word.
        reasons: why, one sentence each, the most important first.
        samples: every question.
        judged: where a judge was asked.
        prompted: the student beside its base with the teacher's prompt, where that was asked for.
        settings: `max_tokens`, `batch_size`, `seed`, `resamples`, `confidence`, … as they were used.
        warnings: what a reader must know: prompts that were trained on, few conversations, …
        costs: what the answers cost that the student was trained on, per teacher.
        question_costs: what the teachers' recorded answers to these very questions cost.
        cost_unknown: why some of the cost is not known.
    """

    run: str
    data: Sequence[Mapping[str, str]]
    conversations: int
    questions: int
    skipped: Sequence[Mapping[str, str]]
    metrics: Sequence[Metric]
    standings: Sequence[ModelMetrics]
    differences: Sequence[Difference]
    verdict: Verdict
    reasons: Sequence[str]
    samples: Sequence[Sample]
    judged: Judgement | None = None
    prompted: PromptedBase | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    costs: Sequence[Cost] = ()
    question_costs: Sequence[Cost] = ()
    cost_unknown: Sequence[str] = ()

    @property
    def headline(self) -> str:
        """The verdict as a sentence."""
        return VERDICTS[self.verdict]

    @property
    def summary(self) -> str:
        """What was found, in one sentence that needs no explanation."""
        exact = {who: sum(one.answers[who].exact for one in self.samples if who in one.answers) for who in _COMPARED}
        total = len(self.samples)
        if max(exact.values()) >= _OFTEN * total:
            student, base = exact["student"], exact["base"]
            questions = f"{student:,} of {total:,} question{'s' if total != 1 else ''}"
            return f"The student gives the same answer as the teacher to {questions}; before training, to {base:,}."
        student_chrf, base_chrf = self.value("student", "chrf"), self.value("base", "chrf")
        if student_chrf is None or base_chrf is None:
            return ""
        return (
            f"The student's answers are {student_chrf.value:.0f} % similar to the teacher's; before training, "
            f"{base_chrf.value:.0f} %."
        )

    def metric(self, name: str) -> Metric | None:
        """The metric of that name; None where it was not measured."""
        return next((one for one in self.metrics if one.name == name), None)

    def value(self, who: Who, name: str) -> Interval | None:
        """A model's value of a metric; None where it was not measured."""
        for one in self.standings:
            if one.who == who:
                return one.figures.get(name)
        return None

    def metrics_of(self, who: Who) -> dict[str, float]:
        """A model's metrics by name, without their intervals."""
        found = {metric.name: self.value(who, metric.name) for metric in self.metrics}
        return {name: one.value for name, one in found.items() if one is not None}

    def difference(self, name: str) -> Difference | None:
        """Student minus base; None where it was not measured, or cannot be compared."""
        return next((one for one in self.differences if one.metric == name), None)

    def to_json(self, *, indent: int | None = None) -> str:
        """The comparison as JSON, ASCII only, without a newline at its end; it holds no NaN and no infinity."""
        return json.dumps(asdict(self), allow_nan=False, indent=indent)

    def to_pandas(self) -> pandas.DataFrame:
        """A row per metric: the values of each model, and the change with its interval and outcome."""
        import pandas

        rows = []
        for metric in self.metrics:
            row: dict[str, Any] = {"metric": metric.name}
            for one in self.standings:
                if metric.name in one.figures:
                    row[one.who] = one.figures[metric.name].value
            found = self.difference(metric.name)
            change = found.change if found is not None else Interval(math.nan)
            outcome = found.outcome if found is not None and metric.better else None
            bounds = {"change": change.value, "low": change.low, "high": change.high}
            rows.append({**row, **bounds, "outcome": outcome})
        frame: pandas.DataFrame = pandas.DataFrame(rows)
        return frame

    def samples_to_pandas(self) -> pandas.DataFrame:
        """A row per question: the teacher's answer, each model's, and how close they are."""
        import pandas

        rows = []
        for sample in self.samples:
            row: dict[str, Any] = {"source": sample.source, "answer_index": sample.turn, "reference": sample.reference}
            for who, answer in sample.answers.items():
                row |= {who: answer.text, f"{who}_exact": answer.exact, f"{who}_chrf": answer.chrf}
            rows.append(row)
        frame: pandas.DataFrame = pandas.DataFrame(rows)
        return frame

    def _repr_html_(self) -> str:
        return fragment("compare", comparison=self)
