"""Figures, their intervals, and the verdict on them."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.comparison.bootstrap import interval, resampled_sums
from distill.comparison.measure import Reading
from distill.comparison.metrics import METRICS, Measured, Said, answer_columns, chrf_of, reading_columns, score_answers
from distill.comparison.questions import Tokens
from distill.comparison.result import Difference, Interval
from distill.comparison.verdict import decide, faults_of, repeats

BY_NAME = {metric.name: metric for metric in METRICS}


def columns(values: list[float]) -> dict:
    """One metric, with a value a question."""
    return {"chrf": (values, [1.0] * len(values))}


SCORES = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.integers(0, 9)), min_size=1, max_size=40)


@given(SCORES)
@settings(deadline=None, max_examples=40)
def test_a_difference_turns_around_with_its_sides(rows):
    one, other, owners = (list(column) for column in zip(*rows, strict=True))
    forth = Measured({"base": columns(one), "student": columns(other)}, owners, 0).differences("student", "base", True)[
        0
    ]
    back = Measured({"base": columns(other), "student": columns(one)}, owners, 0).differences("student", "base", True)[
        0
    ]
    assert forth.change.value == -back.change.value
    assert {forth.outcome, back.outcome} in ({"better", "worse"}, {"no difference"})
    if len(set(owners)) > 1:
        assert forth.change.low == pytest.approx(-back.change.high) and forth.change.low <= forth.change.high
    else:
        assert forth.change.low is None and forth.outcome == "no difference"


@given(SCORES, st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_the_same_seed_gives_the_same_interval_and_equals_do_not_differ(rows, seed):
    values, _, owners = (list(column) for column in zip(*rows, strict=True))
    both = {"base": columns(values), "student": columns(values)}
    first, second = (Measured(both, owners, seed) for _ in range(2))
    assert first.metrics_of("student") == second.metrics_of("student") == first.metrics_of("base")
    (found,) = first.differences("student", "base", True)
    assert second.differences("student", "base", True) == [found]
    assert found.change.value == 0 and found.change.low in (0, None) and found.outcome == "no difference"


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Conversations of four answers that are alike: 95 % intervals of the mean hold it in about 95 % of 150 worlds."""
    draw = numpy.random.default_rng(1)
    held = {False: 0, True: 0}
    for _ in range(150):
        answers = draw.normal(0, 1, (40, 1)) + draw.normal(0, 0.2, (40, 4))
        for by_answer in (False, True):
            rows = answers.reshape(-1, 1) if by_answer else answers.sum(1, keepdims=True)
            draws = resampled_sums(rows, seed=2, resamples=200)[:, 0] / answers.size
            found = interval(answers.mean(), draws, len(rows))
            held[by_answer] += found.low <= 0 <= found.high
    assert 0.90 <= held[False] / 150 <= 0.99
    assert held[True] / 150 < 0.8  # answers of one conversation are not independent


def test_resamples_are_of_whole_conversations_and_paired():
    sums = numpy.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    draws = resampled_sums(sums, seed=0, resamples=50)
    assert draws.shape == (50, 2) and (draws[:, 1] == 10 * draws[:, 0]).all()
    assert set(draws[:, 0]) <= {a + b + c for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)}


def test_many_resamples_are_drawn_in_parts(monkeypatch):
    from distill.comparison import bootstrap

    sums = numpy.arange(12.0).reshape(6, 2)
    whole = resampled_sums(sums, seed=3, resamples=100)
    monkeypatch.setattr(bootstrap, "_WEIGHTS", 13)
    assert (resampled_sums(sums, seed=3, resamples=100) == whole).all()


def test_chrf_is_sacrebleu_s():
    from sacrebleu.metrics import CHRF

    pairs = [("perro", "perro "), ("un perro", "el perro"), ("", "gato"), ("abc", "xyz")]
    scores = chrf_of(pairs)
    assert scores[0] == 100 and scores[2] == 0 and scores[3] == 0
    assert scores[1] == pytest.approx(CHRF().sentence_score("un perro", ["el perro"]).score)


def test_figures_weigh_tokens_and_leave_out_what_has_no_number():
    asked = [Tokens([1], [2, 3], 1, "ab"), Tokens([1], [2, 3, 4, 5], 1, "abcd")]
    readings = [Reading([1.0, 1.0], [True, False]), Reading([2.0] * 4, [True] * 4)]
    read = reading_columns(readings, asked, [2, 4])
    row = Measured({"student": read}, [0, 1], 0).metrics_of("student")
    assert row["perplexity"].value == pytest.approx(numpy.exp(10 / 6))
    assert row["agreement"].value == pytest.approx(500 / 6)
    assert row["bits_per_byte"].value == pytest.approx((1 + 6) / numpy.log(2) / 6)
    for loss in (numpy.inf, numpy.nan, 1e6):  # 1e6: a number, whose exponential is none
        bad = [Reading([loss] * 2, [False] * 2), readings[1]]
        row = Measured({"student": reading_columns(bad, asked, [2, 4])}, [0, 1], 0).metrics_of("student")
        assert "perplexity" not in row and "agreement" in row
    assert score_answers([Said("x", 1, True)], ["x"], [Reading([1e6], [False])], [1])[0].perplexity is None


def test_where_tokens_differ_only_bits_per_byte_are_compared():
    asked = [Tokens([1], [2, 3], 1, "ab")] * 2
    read = reading_columns([Reading([1.0, 1.0], [True, False])] * 2, asked, [2, 2])
    compared = Measured({"base": read, "student": read}, [0, 1], 0).differences("student", "base", False)
    assert [one.metric for one in compared] == ["bits_per_byte"]


def test_stopping_counts_where_the_teacher_s_answer_is_within_the_limit():
    given = score_answers([Said("a", 1, True), Said("b", 9, False), Said("c", 9, False)], ["a", "b", "c"])
    assert answer_columns(given, ["a", "b", "c"], [True, True, False])["stop_rate"] == ([100, 0, 0], [1, 1, 0])
    with_gap = answer_columns([given[0], None], ["a", "b"], [True, True])
    assert with_gap["exact_match"] == ([100, 0], [1, 0]) and with_gap["length_ratio"] == ([1, 0], [1, 0])


def difference(metric: str, outcome: str) -> Difference:
    return Difference(metric, Interval(1.0, 0.5, 1.5), outcome)


SAME, UP, DOWN = "no difference", "better", "worse"


@pytest.mark.parametrize(
    "outcomes, verdict",
    [
        ((UP, UP, UP), "better"),
        ((UP, SAME, SAME), "better"),
        ((SAME, UP, SAME), "better"),
        ((SAME, SAME, UP), "no difference"),  # to stop more often is not to say what the teacher says
        ((SAME, SAME, SAME), "no difference"),
        ((UP, UP, DOWN), "mixed"),
        ((UP, DOWN, SAME), "mixed"),
        ((SAME, SAME, DOWN), "worse"),
        ((DOWN, SAME, UP), "worse"),
    ],
)
@pytest.mark.parametrize("likelihood", ["perplexity", "bits_per_byte"])
def test_the_rule(outcomes, verdict, likelihood):
    names = (likelihood, "chrf", "stop_rate")
    figures = dict.fromkeys(names, Interval(1.0))
    found = [difference(*pair) for pair in zip(names, outcomes, strict=True)]
    found.append(difference("length_ratio", SAME))
    sound, faulty = {"base": {}, "student": {}}, {"base": {"other": "So."}, "student": {"kind": "It is broken."}}
    word, reasons = decide(BY_NAME, figures, figures, found, sound, None)
    assert word == verdict and len(reasons) == 3
    word, reasons = decide(BY_NAME, figures, figures, found, faulty, None)
    assert word == "broken" and reasons[0] == "It is broken."
    as_before = decide(BY_NAME, figures, figures, found, {**faulty, "base": {"kind": "It was."}}, None)[0]
    assert as_before == ("no difference" if verdict == "no difference" else "broken")


def test_faults():
    def faults(*texts, stopped=True, finite=True, reference="An answer."):
        given = score_answers([Said(text, 5, stopped) for text in texts], [reference] * len(texts))
        return list(faults_of(given, [reference] * len(texts), [True] * len(texts), finite).values())

    assert faults("Fine.", "Good.") == []
    assert "does not stop" in faults("Fine.", stopped=False)[0]
    assert "empty" in faults("", " ", "Good.")[0]
    assert "repeat" in faults("the cat " * 20, "no " * 50)[0]
    assert "not finite" in faults("Fine.", finite=False)[0]
    assert faults("-" * 80, reference="-" * 80) == []  # the teacher does it too


def test_what_repeats():
    assert repeats("ab" * 30) and repeats("A start. " + "And so on and on. " * 5)
    assert not repeats("ab" * 10) and not repeats("") and not repeats("Hmm" + "m" * 20)
    assert not repeats(" ".join(str(n) for n in range(100)))
