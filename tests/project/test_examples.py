"""The examples run as their pages say, here with a tiny BLOOM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_article(bloom):
    """Four variants, and the row of each says how many tokens it trains."""
    words = [sys.executable, EXAMPLES / "article" / "compare.py", "--student", bloom, "--epochs", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [line.split("|")[1].strip() for line in table] == ["`copy`", "`masked`", "`trl`", "`trl, end_of_turn=false`"]
    trained = [int(line.split("|")[2].split()[0]) for line in table]
    assert trained[0] > trained[1] == trained[2] == trained[3] + 6  # six answers, six end-of-turn markers


def test_the_recipe(bloom, tmp_path, capsys):
    """As it stands, but for a tiny student, a few prompts, and one step."""
    from distill.cli.main import main

    pytest.importorskip("distill_babel")
    shutil.copytree(EXAMPLES / "recipe", tmp_path / "recipe", ignore=shutil.ignore_patterns("spanish"))
    path = tmp_path / "recipe" / "spanish.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("student: smollm2", f"student: {bloom}"),
        ("teacher: babel", "teacher: babel\n  limit: 8"),
        ("max-tokens: 32", "max-tokens: 4\n  limit: 4"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    assert main(["run", str(path)]) in (0, 1)
    assert "student against its base: " in capsys.readouterr().out


def test_the_articles_chats_are_the_tests_chats(article):
    from distill import read_transcripts

    ours = [chat.messages for chat in read_transcripts(EXAMPLES / "article" / "chats.jsonl")]
    assert ours == [chat.messages for chat in read_transcripts(article)]
