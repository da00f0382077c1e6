"""Progress in a log: a plain line every 30 seconds or 5 %, in the same words for every command; a bar elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill import progress
from distill.cli.main import main
from distill.progress import Progress, StepProgress, duration


class Clock:
    """Stands still until it is told to go."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_long_training_is_twenty_lines(clock, capsys):
    with StepProgress() as on_log:
        for step in range(1, 1001):
            clock.now += 2
            on_log({"step": step, "max_steps": 1000, "loss": 2.5})
    lines = capsys.readouterr().err.splitlines()
    assert 19 <= len(lines) <= 68  # 30 seconds are 15 steps, 5 % are 50
    assert lines[0] == "distill: training: 16 of 1,000 steps (2%), loss 2.500, 0.5 steps/s, 33 min left"
    assert lines[0] in (Path(__file__).parents[2] / "docs/recipe.md").read_text(encoding="utf-8"), (
        "as the page shows it"
    )


def test_a_quick_job_is_silent(clock, capsys):
    with Progress("collecting", 100, "row") as shown:
        for _ in range(100):
            clock.now += 0.01
            shown.advance()
    assert capsys.readouterr().err == ""


def test_a_slow_one_tells_each_step_of_five_percent(clock, capsys):
    with Progress("collecting", 40, "row", text=lambda: "1 failed") as shown:
        for _ in range(40):
            clock.now += 6
            shown.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20 and lines[-1].startswith("distill: collecting: 40 of 40 rows (100%), 1 failed, ")


def test_what_was_skipped_counts_in_no_rate(clock):
    shown = Progress("collecting", 100, "row", shown=False)
    for _ in range(50):
        shown.skip()
    shown.advance()
    assert "rows/s" not in shown.line()  # the first one has warmed up
    clock.now += 10
    shown.advance()
    assert shown.line() == "collecting: 52 of 100 rows (52%), 0.1 rows/s, 8 min left"


def test_quiet_shows_no_notes(tmp_path, capsys, article):
    words = ["convert", str(article), str(tmp_path / "out.jsonl"), "--to", "openai"]
    assert main(words) == 0 and "converted to openai" in capsys.readouterr().err
    assert main(["--quiet", *words, "--force"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--force"]) == 0 and "converted" in capsys.readouterr().err


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colours_can_be_forced_and_forbidden(variable, coloured, monkeypatch, capsys):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    assert main(["plugins"]) == 0
    assert ("\x1b[1m" in capsys.readouterr().out) == coloured


def test_durations_are_short():
    assert [duration(seconds) for seconds in (3, 89, 720, 12000)] == ["3 s", "89 s", "12 min", "3 h 20 min"]
