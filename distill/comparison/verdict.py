"""Figures to a verdict in words, by a rule that can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from distill.comparison.result import Difference, Given, Interval, Judged, Metric, Verdict

_MOSTLY = 0.5  # the share of answers from which on a fault makes a student broken

_LIKELIHOOD = ("perplexity", "bits_per_byte")

_WORDS = {
    "perplexity": ("The teacher's answers became likelier", "The teacher's answers became less likely"),
    "bits_per_byte": ("The teacher's answers became likelier", "The teacher's answers became less likely"),
    "chrf": ("Its own answers came closer to the teacher's", "Its own answers went away from the teacher's"),
    "stop_rate": ("It ends its answers more often", "It ends its answers less often"),
}


def decide(
    metrics: Mapping[str, Metric],
    base: Mapping[str, Interval],
    student: Mapping[str, Interval],
    differences: Sequence[Difference],
    faults: Mapping[str, Mapping[str, str]],
    judged: Judged | None,
) -> tuple[Verdict, list[str]]:
    """Say whether the student is better than its base.

    It is `broken` where it has faults; one that is no better and no worse than a base with the same is as it was. Else
    it is better where the teacher's answers became
    likelier or its own came closer to them, with an interval that excludes no change, and neither of these nor the
    stop rate got worse; `worse` the other way round; `mixed` where some got better and some worse.

    Args:
        metrics: name → metric.
        base, student: their figures.
        differences: student minus base.
        faults: of base and student, as `faults_of` found them.
        judged: what a judge preferred; it is told, and decides nothing.

    Returns:
        The verdict, and the reasons, the weightiest first.
    """
    likelihood = next((one.metric for one in differences if one.metric in _LIKELIHOOD), None)
    outcomes = {one.metric: one for one in differences if one.metric in (likelihood, "chrf", "stop_rate")}
    good = [name for name, one in outcomes.items() if one.outcome == "better" and name != "stop_rate"]
    bad = [name for name, one in outcomes.items() if one.outcome == "worse"]
    verdict: Verdict = "mixed" if good and bad else "better" if good else "worse" if bad else "no difference"
    as_it_was = verdict == "no difference" and faults["student"].keys() <= faults["base"].keys()
    if faults["student"] and not as_it_was:
        verdict = "broken"
    order = sorted(outcomes, key=lambda name: outcomes[name].outcome == "no difference")
    told = [_tell(outcomes[name], metrics[name], base[name], student[name]) for name in order]
    return verdict, [*faults["student"].values(), *told, *([_judgement(judged)] if judged else [])]


def _tell(one: Difference, metric: Metric, base: Interval, student: Interval) -> str:
    """One difference, in a sentence."""
    up, down = _WORDS[one.metric]
    figures = f"{metric.title} {number(base.value, metric)} → {number(student.value, metric)}"
    if one.change.low is None or one.change.high is None:
        return f"{figures}: one conversation cannot tell a change."
    bounds = f"{number(one.change.low, metric, sign=True)} to {number(one.change.high, metric, sign=True)}"
    change = f"change {number(one.change.value, metric, sign=True)}, 95 % interval {bounds}"
    if one.outcome == "no difference":
        return f"{figures}: no difference beyond chance ({change})."
    return f"{up if one.outcome == 'better' else down}: {figures} ({change})."


def _judgement(judged: Judged) -> str:
    asked = judged.wins + judged.losses + judged.ties
    text = f"The judge {judged.model} preferred the student {judged.wins} times, the base {judged.losses} times"
    failed = f"; {judged.failed} pairs were not judged" if judged.failed else ""
    return f"{text}, and neither {judged.ties} times, of {asked}{failed}."


def number(value: float, metric: Metric, sign: bool = False) -> str:
    """A figure, or a change, for people."""
    if metric.unit:
        text = f"{value:+.1f}" if sign else f"{value:.1f}"
        return f"{text} {metric.unit}" if metric.unit == "%" else text
    digits = 1 if metric.name == "chrf" or abs(value) >= 100 else 2 if abs(value) >= 0.1 or not value else 3
    return f"{value:{'+' if sign else ''},.{digits}f}"


def faults_of(given: Sequence[Given], references: Sequence[str], fits: Sequence[bool], finite: bool) -> dict[str, str]:
    """Say what is so wrong with a model that its other figures do not matter.

    Args:
        given: its answers.
        references: the teacher's.
        fits: whether the teacher's answer is within the token limit.
        finite: whether its probabilities are numbers.

    Returns:
        Each kind of fault, and the sentence that tells it.
    """
    faults = {} if finite else {"finite": "Its probabilities are not finite numbers: its weights are damaged."}
    stopped = [one.stopped for one, fit in zip(given, fits, strict=True) if fit]
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
        count = sum(is_so(one.text) and not is_so(text) for one, text in zip(given, references, strict=True))
        if given and count > _MOSTLY * len(given):
            faults[what] = f"{count} of its {len(given)} answers {what}."
    return faults


def repeats(text: str) -> bool:
    """Whether a text ends in at least four repeats of up to 60 characters, and at least 40 characters of them."""
    for period in range(1, 61):
        stretch = text[-max(40, 4 * period) :]
        if len(stretch) == max(40, 4 * period) and stretch[period:] == stretch[:-period]:
            return True
    return False
