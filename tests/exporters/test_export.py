"""`distill export`: the student is the same outside of its run."""

from __future__ import annotations

import json

import pytest
from run_folders import write_run
from safetensors.torch import load_file

from distill.cli.main import main


@pytest.fixture(scope="module")
def run(bloom, tmp_path_factory):
    from article import ARTICLE

    folder = tmp_path_factory.mktemp("export")
    data = folder / "data.jsonl"
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in ARTICLE]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", str(data), "--student", str(bloom), "--out", str(folder / "run"), "--epochs", "1", "--lora"]
    assert main(words) == 0
    return folder / "run"


def test_the_exported_student_is_the_trained_one(run, tmp_path, capsys):
    out = tmp_path / "student"
    assert main(["export", str(run), "--to", "merged", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to"] == "merged" and "model.safetensors" in told["files"] and told["bytes"] > 0
    ours, theirs = load_file(out / "model.safetensors"), load_file(run / "model/model.safetensors")
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    assert not any("lora" in name for name in ours)
    answers = []
    for model in (run, out):
        assert main(["generate", str(model), "How do you say dog?", "--max-tokens", "4", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["answer"])
    assert answers[0] == answers[1]


def test_nothing_is_overwritten(run, tmp_path, capsys):
    (tmp_path / "student").mkdir()
    assert main(["export", str(run), "--to", "merged", "--out", str(tmp_path / "student")]) == 2
    assert "exists" in capsys.readouterr().err and not any((tmp_path / "student").iterdir())


@pytest.mark.parametrize("what", ["missing", "bloom"])
def test_only_runs_are_exported(bloom, tmp_path, capsys, what):
    source = bloom if what == "bloom" else tmp_path / "missing"
    assert main(["export", str(source), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_an_unfinished_run_is_named(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "has no finished model" in capsys.readouterr().err
