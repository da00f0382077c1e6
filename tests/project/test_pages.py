"""The pages of a run: self-contained, and safe whatever names and reasons they hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from html_page import Page
from run_folders import REPORT

from distill.runs.manifest import BaseModel, DataFile, RunManifest, Setting
from distill.training import TrainSettings, train
from distill.training.report import report_page

EVIL = "<script>alert(1)</script>\"'&"


def manifest(**report):
    counts = {
        "rows": 5,
        "trained_rows": 4,
        "trained_tokens": 20,
        "tokens": 100,
        "steps": 3,
        "loss": 1.5,
        "held_out_rows": 0,
    }
    return RunManifest(
        state="finished",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:00Z",
        student=BaseModel(EVIL, None),
        settings={"formatter": Setting({"template": EVIL})},
        versions={"torch": EVIL},
        data=(DataFile(EVIL, "0"),),
        report=replace(REPORT, **{"out": EVIL, "reasons": {EVIL: 1}, **counts, **report}),
    )


def test_nothing_of_a_run_becomes_markup():
    rows = [{"step": step, "loss": 3.0 - step} for step in (1, 2, 3)]
    page = report_page(manifest(), rows)
    read = Page(page)
    assert "svg" in read.tags and read.text.count(EVIL) >= 5 and "prefers-color-scheme: dark" in page
    assert "<script" not in page


@pytest.mark.parametrize("losses", [[], [2.0], [0.0, 0.0], [5.0, 1.0] * 40_000])
def test_any_number_of_steps_gives_a_page(losses):
    page = report_page(manifest(), [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])
    assert ("svg" in Page(page).tags) == (len(losses) > 1)
    assert len(page) < 60_000, "a long curve is thinned out"
    for path in re.findall(r' d="([^"]*)"', page):
        numbers = [float(number) for number in re.findall(r"[-\d.]+", path)]
        assert all(0 <= number <= 720 for number in numbers)


def test_a_run_has_its_page(manager, bloom, article, tmp_path):
    with article.open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n")
    out = tmp_path / "run <b>"
    report = train(TrainSettings(str(bloom), (article,), out, epochs=2), manager)
    text = Page((out / "report.html").read_text()).text
    for part in (f"{report.loss:.4f}", "no assistant message", "learning_rate", "5e-05", "run <b>", "torch"):
        assert part in text
