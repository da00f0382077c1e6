"""The page of a comparison: all of it is there, nothing of others' text can act, and a real browser shows it so."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from chromium import CHROMIUM, check_page
from html_page import Page
from run_folders import write_run

from distill.comparison.metrics import METRICS
from distill.comparison.page import SAMPLES, comparison_page
from distill.comparison.result import (
    Comparison,
    Cost,
    Difference,
    Interval,
    Judgement,
    ModelAnswer,
    ModelMetrics,
    Sample,
)
from distill.types import Message

EVIL = "</div></style><script>document.title='owned'</script><img src=x onerror=alert(1)> \"'& {{ 7*7 }}"


SEARCH = """(() => {
  const [text, show, found] = ["input", "select", "output"].map(tag => document.querySelector("#search " + tag));
  const seen = () => [...document.querySelectorAll("[data-row]")].filter(one => one.checkVisibility()).length;
  const press = (key, at = document.body) => at.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const told = [seen()];
  press("/");
  if (document.activeElement !== text) throw "the key / leads to the search";
  text.value = "القطة تجلس"; text.dispatchEvent(new Event("input"));
  told.push(found.textContent, seen());
  text.value = "<img src=x onerror=alert(1)>nowhere"; text.dispatchEvent(new Event("input"));
  told.push(found.textContent, seen());
  text.value = ""; show.value = "differs"; show.dispatchEvent(new Event("change"));
  told.push(found.textContent);
  show.value = ""; show.dispatchEvent(new Event("change"));
  press("Escape", text);
  told.push(found.textContent, seen());
  press("j");
  told.push(document.activeElement.tagName);
  return told;
})()"""
"""Searches as a reader would: what is found, and how many are seen then."""


def made(samples, **more) -> Comparison:
    figures = {metric.name: Interval(50.0, 40.0, 60.0) for metric in METRICS}
    change = [Difference(name, Interval(5.0, 1.0, 9.0), "better") for name in figures]
    values = {
        "run": "runs/one",
        "data": [{"file": "held_out.jsonl", "sha256": "00"}],
        "conversations": len(samples),
        "questions": len(samples),
        "skipped": [],
        "metrics": METRICS,
        "standings": [ModelMetrics("base", "the base", figures), ModelMetrics("student", "the student", figures)],
        "differences": change,
        "verdict": "better",
        "reasons": ["It came closer."],
        "samples": samples,
    }
    return Comparison(**{**values, **more})


def sample(n: int, answer: str = "a cat", reference: str = "a dog", chrf: float = 50.0, asked: str = "what?") -> Sample:
    answers = {
        "base": ModelAnswer("", 1, False, False, 0.0),
        "student": ModelAnswer(answer, 3, True, False, chrf, 2.5, 0.5),
    }
    return Sample(f"id {n}", f"held_out.jsonl:{n + 1}", 0, [Message("user", asked)], reference, answers)


def run_folder(path):
    """A run folder, with what a page takes from it."""
    return write_run(path)


def test_all_of_it_is_there(tmp_path):
    judged = Judgement("the judge", 7, 2, 1, 1, Interval(75.0, 60.0, 90.0))
    skipped = [{"source": "held_out.jsonl:9", "reason": "it has no answer"}]
    costs = [Cost("openai:gpt-5-mini", 3, 3, 90, 240, 0.01, "https://api.openai.com/v1"), Cost("no teacher named", 1)]
    told = {"judged": judged, "skipped": skipped, "warnings": ["Few conversations."], "costs": costs}
    comparison = made([sample(n) for n in range(4)], **told)
    raw = comparison_page(comparison, run_folder(tmp_path))
    page = Page(raw)
    for part in (
        "The student is better than its base.",
        "It came closer.",
        "Few conversations.",
        *(metric.title for metric in METRICS),
        "75.0 %",
        "1 pair was not judged",
        "it has no answer",
        "of 9 rows trained, 2 skipped, 3 held out",
        "25.0 %",
        "90 tokens sent, 240 answered",
        "published prices of https://api.openai.com/v1, if it was that server",
        "tokens and cost are unknown",
        "Training loss",
        "held_out.jsonl:4",
        "did not stop",
        "empty",
    ):
        assert part in page.text, part
    assert "<ins>cat</ins>" in raw and "<del>dog</del>" in raw


def test_one_sentence_tells_what_was_found():
    def found(*exact: bool, chrf: float = 60.0) -> Comparison:
        samples = []
        for n, is_exact in enumerate(exact):
            one = sample(n)
            answers = {**one.answers, "student": replace(one.answers["student"], exact=is_exact)}
            samples.append(replace(one, answers=answers))
        return made(samples)

    assert found(True, False).summary == (
        "The student gives the same answer as the teacher to 1 of 2 questions; before training, to 0."
    )
    assert found(True).summary.endswith("to 1 of 1 question; before training, to 0.")
    assert found(*[False] * 9).summary == (
        "The student's answers are 50 % similar to the teacher's; before training, 50 %."
    )


def test_an_answer_that_is_the_teacher_s_is_never_among_the_farthest(tmp_path):
    samples = [sample(n, chrf=100.0) for n in range(9)]
    exact = [replace(one, answers={"student": replace(one.answers["student"], exact=True)}) for one in samples]
    page = Page(comparison_page(made(exact), tmp_path))
    assert "Farthest" not in page.text and "Closest to the teacher" in page.text


def test_what_is_missing_is_said(tmp_path):
    figure = {"chrf": Interval(20.0)}
    bare = {
        "metrics": [metric for metric in METRICS if metric.name == "chrf"],
        "standings": [ModelMetrics("base", "", figure), ModelMetrics("student", "", figure)],
        "differences": [Difference("chrf", Interval(0.0), "no difference")],
        "verdict": "no difference",
        "reasons": [],
    }
    page = Page(comparison_page(made([sample(0)], **bare), tmp_path / "nothing"))
    assert "the run folder does not tell" in page.text and "No difference" in page.text
    assert (
        "x.jsonl is gone"
        in Page(comparison_page(made([], cost_unknown=["x.jsonl is gone"]), run_folder(tmp_path))).text
    )


def test_the_worst_and_the_best_come_first_and_what_is_left_out_is_counted(tmp_path):
    page = Page(comparison_page(made([sample(n, chrf=float(n * 37 % 100)) for n in range(100)]), tmp_path))
    places = [int(number) for number in re.findall(r"held_out\.jsonl:(\d+)", page.text)]
    assert [(place - 1) * 37 % 100 for place in places[:10]] == [0, 1, 2, 3, 4, 99, 98, 97, 96, 95]
    assert len(places) == SAMPLES and places[10:] == sorted(places[10:])
    assert f"{SAMPLES} of 100 questions are shown; 40 are left out" in page.text


def test_hostile_text_is_text(tmp_path):
    evil = made(
        [sample(0, EVIL + "\x1b[31m\u202e", EVIL, asked=EVIL)],
        run=EVIL,
        reasons=[EVIL],
        warnings=[EVIL],
        data=[{"file": EVIL, "sha256": EVIL}],
        skipped=[{"source": EVIL, "reason": EVIL}],
        settings={EVIL: EVIL},
        judged=Judgement(EVIL, 1, 0, 0, 0, None),
    )
    raw = comparison_page(evil, tmp_path)
    page = Page(raw)
    assert page.text.count(EVIL) >= 9 and raw.count("<script") == 1
    assert "\x1b" not in raw and "\u202e" not in raw and r"\x1b" in page.text and r"\u202e" in page.text


def test_long_answers_are_cut_with_a_count_and_in_bounded_time(tmp_path):
    page = comparison_page(made([sample(n, "a b " * 50_000, "b a " * 50_000) for n in range(9)]), tmp_path)
    assert "194,000 more characters, left out here" in page and len(page) < 1_000_000


def test_an_answer_of_nothing_but_line_breaks_takes_no_room(tmp_path):
    page = comparison_page(made([sample(0, "\n" * 500)]), tmp_path)
    assert "nothing but 500 spaces and line breaks" in page and "\n" * 9 not in page
    page = comparison_page(made([sample(0, "cat" + "\n" * 500 + "dog")]), tmp_path)
    assert "500 line breaks" in page and "\n" * 9 not in page


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(tmp_path):
    long = "word " * 900 + "x" * 5000
    samples = [sample(0, EVIL + "\u202e", EVIL), sample(1, "القطة تنام", "القطة تجلس"), sample(2, long, long + "end")]
    comparison = made(
        [*samples, *(sample(n) for n in range(3, 9))], run="r" * 300, judged=Judgement("j", 1, 2, 3, 0, None)
    )
    page = tmp_path / "page.html"
    page.write_text(comparison_page(comparison, run_folder(tmp_path)), encoding="utf-8")
    scripts = [
        "[...document.querySelectorAll('main > section')].map(one => one.getAttribute('aria-labelledby'))",
        "document.title",
        "document.querySelectorAll('img').length + document.querySelectorAll('script').length - 1",
        f"document.body.textContent.includes({json.dumps(EVIL)})",
        "getComputedStyle(document.querySelector('del')).textDecorationLine",
        SEARCH,
    ]
    sections, title, foreign, text, struck, searched = check_page(page, scripts, tmp_path)
    assert sections == ["verdict", "metrics", "judge", "lengths", "samples", "training", "how"]
    assert title.startswith("better: rrr") and foreign == 0 and text and struck == "line-through"
    assert searched == [9, "1 of 9", 1, "0 of 9", 0, "9 of 9", "", 9, "ARTICLE"]
