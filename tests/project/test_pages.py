"""The pages of a run: self-contained, and safe whatever names and reasons they hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from chromium import CHROMIUM, check_page
from html_page import Page
from run_folders import REPORT

from distill.cli.main import main
from distill.collection.costs import Cost
from distill.comparison.result import Comparison, ModelAnswer, Sample
from distill.comparison.run_report import outcome_of
from distill.runs.manifest import BaseModel, DataFile, RunManifest, Setting
from distill.runs.run import Run
from distill.training import TrainSettings, train
from distill.training.report import report_page
from distill.types import Message

EVIL = "<script>alert(1)</script>\"'&"


def run_of(folder, rows, settings=None, **report) -> Run:
    """A run with hostile names, and these logged steps."""
    manifest = RunManifest(
        state="finished",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:00Z",
        student=BaseModel(EVIL, None),
        settings=settings or {"formatter": Setting({"template": EVIL})},
        versions={"torch": EVIL},
        data=(DataFile(EVIL, "0"),),
        report=replace(REPORT, **{"out": EVIL, "reasons": {EVIL: 1}, **report}),
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run(folder, manifest)


def compared() -> Comparison:
    """A comparison in which the student learned some answers."""
    samples = []
    for n, (student, exact) in enumerate([("perro", True), ("gata", False), ("pez", True)] * 3):
        answers = {
            "student": ModelAnswer(student, 2, True, exact, 100.0 if exact else 40.0),
            "base": ModelAnswer(EVIL, 9, False, False, 5.0),
        }
        samples.append(Sample(str(n), f"held.jsonl:{n + 1}", 0, [Message("user", EVIL)], EVIL, answers))
    costs = [Cost(EVIL, 3, 3, 9, 9, 0.0123, "x")]
    return Comparison("run", [], 9, 9, [], [], [], [], "better", [EVIL], samples, costs=costs)


def test_nothing_of_a_run_becomes_markup(tmp_path):
    rows = [{"step": step, "loss": 3.0 - step, "eval_loss": 4.0 - step} for step in (1, 2, 3)]
    run = run_of(tmp_path, rows)
    page = report_page(run, compared().costs, outcome_of(compared()))
    read = Page(page)
    assert "svg" in read.tags and read.text.count(EVIL) >= 12 and "prefers-color-scheme: dark" in page
    assert page.count("<script") == 1 and "held out" in read.text
    assert Page('<meta http-equiv="x">' + run._repr_html_()).text.count(EVIL) == 0, "all its settings are defaults"


def test_the_report_tells_what_came_of_it(tmp_path):
    run = run_of(tmp_path, [], out="spanish/run", seconds=130.0)
    text = Page(report_page(run, compared().costs, outcome_of(compared()))).text
    for part in (
        "The student is better than its base.",
        "the same answer as the teacher to 6 of 9 questions; before training, to 0.",
        "2 min",
        "$0.0123",
        "1 setting at its default",
    ):
        assert part in text, part
    assert text.count("perro") + text.count("pez") == 3 and text.count("gata") == 2, "five telling answers"
    alone = Page(report_page(run, [])).text
    assert "Not compared with its base yet: distill compare spanish/run" in alone


def test_settings_that_differ_come_first_under_their_options_names(tmp_path):
    values = {
        "batch-size": Setting(4, "command line"),
        "epochs": Setting(3.0),
        "trainer-options": Setting({"lr_scheduler_type": "constant"}, "recipe"),
        "max-length": Setting(None),
    }
    page = report_page(run_of(tmp_path, [], settings=values), [])
    body = page.partition("</style>")[2].partition("<script>")[0]
    before, _, after = body.partition("<details>")
    assert ">batch-size<" in before and "lr_scheduler_type=constant" in before
    assert ">epochs<" in after and ">none<" in after and "{" not in body and "None" not in body
    shown = run_of(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], settings=values)._repr_html_()
    assert "<svg" in shown and "batch-size" in shown and "epochs" not in shown


@pytest.mark.parametrize("losses", [[], [2.0], [0.0, 0.0], [5.0, 1.0] * 40_000])
def test_any_number_of_steps_gives_a_page(tmp_path, losses):
    run = run_of(tmp_path, [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])
    page = report_page(run, [])
    assert ("svg" in Page(page).tags) == (len(losses) > 1)
    assert len(page) < 60_000, "a long curve is thinned out"


def test_a_run_has_its_page(manager, bloom, article, tmp_path):
    with article.open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n")
    out = tmp_path / "run <b>"
    report = train(TrainSettings(str(bloom), (article,), out, epochs=2), manager)
    text = Page((out / "report.html").read_text()).text
    for part in (f"{report.loss:.4f}", "no assistant message", "learning-rate", "5e-05", "run <b>", "torch"):
        assert part in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_report_in_a_browser(tmp_path):
    long = {"trainer-options": Setting({"x" * 300: EVIL * 20}, "recipe"), "out": Setting("o" * 400, "command line")}
    rows = [{"step": step, "loss": 3.0 / step, "eval_loss": 4.0 / step} for step in range(1, 60)]
    run = run_of(tmp_path, rows, settings=long, out="r" * 300, reasons={"w" * 400 + EVIL: 12})
    page = tmp_path / "report.html"
    page.write_text(report_page(run, compared().costs, outcome_of(compared())), encoding="utf-8")
    count = "document.querySelectorAll('img').length + document.querySelectorAll('script').length - 1"
    opened = "document.querySelectorAll('details').forEach(one => one.open = true)"
    drawn = "document.querySelectorAll('svg').length > 0 && document.documentElement.scrollWidth <= innerWidth"
    foreign, _, curve = check_page(page, [count, opened, drawn], tmp_path)
    assert foreign == 0 and curve


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_tokens_of_rows_in_a_browser(bloom, tmp_path):
    data, page = tmp_path / "data.jsonl", tmp_path / "show.html"
    texts = [EVIL, "\u202eright to left", "القطة تنام", "x" * 3000, "a\n" * 200]
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in texts]
    data.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    assert main(["show", str(data), "--student", str(bloom), "--html", str(page)]) == 0
    count = "['img', 'details.tokens'].map(one => document.querySelectorAll(one).length)"
    assert check_page(page, [count], tmp_path) == [[0, len(texts)]]
