"""From metrics to a verdict in words, by a rule that can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from distill.comparison.metrics import PROMPT_TOKENS
from distill.comparison.result import (
    Difference,
    Interval,
    Judgement,
    Metric,
    ModelAnswer,
    PromptedBase,
    Verdict,
    Who,
)

_MOSTLY = 0.5  # the fraction of answers above which a fault makes a student broken

_LIKELIHOOD = ("perplexity", "bits_per_byte")

_WORDS = {
    "perplexity": ("The teacher's answers became more likely", "The teacher's answers became less likely"),
    "bits_per_byte": ("The teacher's answers became more likely", "The teacher's answers became less likely"),
    "chrf": ("Its own answers came closer to the teacher's", "Its own answers moved away from the teacher's"),
    "stop_rate": ("It ends its answers more often", "It ends its answers less often"),
}


def decide(
    metrics: Mapping[str, Metric],
    base: Mapping[str, Interval],
    student: Mapping[str, Interval],
    differences: Sequence[Difference],
    faults: Mapping[Who, Mapping[str, str]],
    judged: Judgement | None,
) -> tuple[Verdict, list[str]]:
    """Say whether the student is better than its base.

    It is `broken` where it has faults, unless its base has the same ones and nothing else changed. Otherwise it is
    `better` where the teacher's answers became more likely or its own came closer to them, with an interval that
    excludes no change, and neither of these nor the stop rate got worse; `worse` the other way round; `mixed` where
    some got better and some worse.

    Args:
        metrics: name → metric.
        base, student: their metrics.
        differences: student minus base.
        faults: of base and student, as `faults_of` found them.
        judged: what a judge preferred; it is reported, and decides nothing.

    Returns:
        The verdict, and the reasons, the most important first.
    """
    outcomes = _deciding(differences)
    verdict = _weigh(outcomes)
    as_it_was = verdict == "no difference" and faults["student"].keys() <= faults["base"].keys()
    if faults["student"] and not as_it_was:
        verdict = "broken"
    order = sorted(outcomes, key=lambda name: outcomes[name].outcome == "no difference")
    told = [_tell(outcomes[name], metrics[name], base[name], student[name]) for name in order]
    return verdict, [*faults["student"].values(), *told, *([_judgement(judged)] if judged else [])]


def _deciding(differences: Sequence[Difference]) -> dict[str, Difference]:
    """The differences that decide, by their metrics."""
    likelihood = next((one.metric for one in differences if one.metric in _LIKELIHOOD), None)
    return {one.metric: one for one in differences if one.metric in (likelihood, "chrf", "stop_rate")}


def _weigh(outcomes: Mapping[str, Difference]) -> Verdict:
    """The verdict of the deciding differences."""
    good = [name for name, one in outcomes.items() if one.outcome == "better" and name != "stop_rate"]
    bad = [name for name, one in outcomes.items() if one.outcome == "worse"]
    if good and bad:
        return "mixed"
    if good or bad:
        return "better" if good else "worse"
    return "no difference"


_PROMPTED: Mapping[Verdict, str] = {
    "better": "The student is better than its base with the teacher's prompt",
    "no difference": "No difference between the student and its base with the teacher's prompt",
    "worse": "The student is worse than its base with the teacher's prompt",
    "mixed": "The student is better than its base with the teacher's prompt in one way, and worse in another",
}


def beside_prompted(
    student: Mapping[str, Interval], prompted: Mapping[str, Interval], differences: Sequence[Difference], without: int
) -> PromptedBase:
    """Compare a student with its base that gets the teacher's prompt, by the rule of `decide`.

    Args:
        student, prompted: their metrics.
        differences: student minus prompted base.
        without: how many questions have no such prompt.
    """
    verdict = _weigh(_deciding(differences))
    fewer, saved = None, ""
    if any(one.metric == PROMPT_TOKENS for one in differences):
        few, many = student[PROMPT_TOKENS].value, prompted[PROMPT_TOKENS].value
        fewer = 100 * (1 - few / many)
        saved = f"; it reads {fewer:.0f} % fewer prompt tokens ({few:,.0f} instead of {many:,.0f} per question)"
    return PromptedBase(verdict, f"{_PROMPTED[verdict]}{saved}.", fewer, differences, without)


def _tell(one: Difference, metric: Metric, base: Interval, student: Interval) -> str:
    """One difference, in a sentence."""
    up, down = _WORDS[one.metric]
    figures = f"{metric.title} {metric.format(base.value)} → {metric.format(student.value)}"
    if one.change.low is None or one.change.high is None:
        return f"{figures}: one conversation cannot tell a change."
    bounds = f"{metric.format(one.change.low, sign=True)} to {metric.format(one.change.high, sign=True)}"
    change = f"change {metric.format(one.change.value, sign=True)}, 95 % interval {bounds}"
    if one.outcome == "no difference":
        return f"{figures}: no difference beyond chance ({change})."
    return f"{up if one.outcome == 'better' else down}: {figures} ({change})."


def _judgement(judged: Judgement) -> str:
    asked = judged.wins + judged.losses + judged.ties
    text = f"The judge {judged.model} preferred the student {judged.wins} times, the base {judged.losses} times"
    failed = f"; {judged.failed} pairs were not judged" if judged.failed else ""
    return f"{text}, and neither {judged.ties} times, of {asked}{failed}."


def faults_of(
    answers: Sequence[ModelAnswer], references: Sequence[str], fits: Sequence[bool], finite: bool
) -> dict[str, str]:
    """What is so wrong with a model that its other metrics do not matter.

    Args:
        answers: its answers.
        references: the teacher's.
        fits: whether the teacher's answer is within the token limit.
        finite: whether its probabilities are numbers.

    Returns:
        Each kind of fault, with a sentence about it.
    """
    faults = {} if finite else {"finite": "Its probabilities are not finite numbers: its weights are damaged."}
    stopped = [one.stopped for one, fit in zip(answers, fits, strict=True) if fit]
    if stopped and sum(stopped) < _MOSTLY * len(stopped):
        faults["endless"] = (
            f"It does not stop: it ended {sum(stopped)} of {len(stopped)} answers that the teacher ended within the "
            "token limit. Was the end-of-turn marker trained?"
        )
    looks: list[tuple[str, Callable[[str], bool]]] = [
        ("are empty", lambda text: not text.strip()),
        ("repeat themselves without end", repeats),
    ]
    for what, is_so in looks:
        count = sum(is_so(one.text) and not is_so(text) for one, text in zip(answers, references, strict=True))
        if answers and count > _MOSTLY * len(answers):
            faults[what] = f"{count} of its {len(answers)} answers {what}."
    return faults


def repeats(text: str) -> bool:
    """Whether a text ends in at least four repeats of up to 60 characters, and at least 40 characters of them."""
    for period in range(1, 61):
        stretch = text[-max(40, 4 * period) :]
        if len(stretch) == max(40, 4 * period) and stretch[period:] == stretch[:-period]:
            return True
    return False
