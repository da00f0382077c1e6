"""What is entered and shown, and that a broken ledger stops nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import distill_ledger
import pytest
from click.testing import CliRunner

import distill
from distill import CollectRun, Message, TrainResult, Transcript
from distill.testing import load_plugin


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_LEDGER", str(tmp_path / "new" / "ledger.sqlite3"))
    return tmp_path / "new" / "ledger.sqlite3"


@pytest.fixture
def manager():
    return load_plugin(distill_ledger)


def collected(manager, id, teacher="openai:m", out="a.jsonl", **usage):
    messages = [Message("user", "secret question"), Message("assistant", "secret answer")]
    transcript = Transcript(id, messages, metadata={"usage": usage})
    manager.notify("transcript_collected", transcript=transcript, run=CollectRun(Path(out), teacher))


def show(*words):
    result = CliRunner().invoke(distill_ledger.ledger, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_answers_are_added_up_by_teacher(file, manager):
    collected(manager, "1", prompt_tokens=3, completion_tokens=2)
    collected(manager, "2", out="b.jsonl", prompt_tokens=4, completion_tokens=5)
    collected(manager, "3", teacher="babel")
    rows = {row["teacher"]: row for row in json.loads(show("--json"))["answers"]}
    assert (rows["openai:m"]["answers"], rows["openai:m"]["files"]) == (2, 2)
    assert (rows["openai:m"]["tokens_in"], rows["openai:m"]["tokens_out"]) == (7, 7)
    assert (rows["babel"]["answers"], rows["babel"]["tokens_in"]) == (1, None)
    assert "'openai:m': 2 answers in 2 files, 7 tokens in, 7 out\n" in show()


def test_trainings_are_listed(file, manager):
    manager.notify("training_finished", run=Path("run"), result=TrainResult(12, 0.25))
    manager.notify("training_finished", run=Path("none"), result=TrainResult(0, None))
    rows = json.loads(show("--json"))["trainings"]
    assert {(Path(row["run"]).name, row["steps"], row["loss"]) for row in rows} == {
        ("run", 12, 0.25),
        ("none", 0, None),
    }
    assert "run': 12 steps, mean loss 0.2500\n" in show()


def test_since(file, manager):
    collected(manager, "1")
    assert json.loads(show("--json", "--since", "2999-01-01"))["answers"] == []
    assert len(json.loads(show("--json", "--since", "2020"))["answers"]) == 1


def test_nothing_that_was_said_is_in_it(file, manager):
    collected(manager, "1")
    assert b"secret" not in b"".join(part.read_bytes() for part in file.parent.iterdir())


def test_a_ledger_that_cannot_be_written_is_a_warning(manager, monkeypatch, tmp_path, caplog):
    (tmp_path / "ledger").write_text("no database, but long enough to be taken for a damaged one" * 20)
    monkeypatch.setenv("DISTILL_LEDGER", str(tmp_path / "ledger"))
    with caplog.at_level(logging.WARNING):
        collected(manager, "1")
    assert "failed in transcript_collected: DatabaseError: file is not a database" in caplog.text


def test_without_a_file_nothing_is_entered(manager, monkeypatch, tmp_path):
    monkeypatch.delenv("DISTILL_LEDGER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    collected(manager, "1")
    manager.notify("training_finished", run=Path("run"), result=TrainResult(1, 1.0))
    assert list(tmp_path.rglob("*")) == []
    result = CliRunner().invoke(distill_ledger.ledger)
    assert isinstance(result.exception, distill.UsageError)


def test_an_empty_ledger(file):
    assert show() == ""
