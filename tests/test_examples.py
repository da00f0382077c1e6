"""The examples run as their pages say, here with a tiny BLOOM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_article(bloom):
    """Four variants, and the row of each says how many tokens it trains."""
    words = [sys.executable, EXAMPLES / "article" / "compare.py", "--student", bloom, "--epochs", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [line.split("|")[1].strip() for line in table] == ["`copy`", "`masked`", "`trl`", "`trl, end_of_turn=false`"]
    trained = [int(line.split("|")[2].split()[0]) for line in table]
    assert trained[0] > trained[1] == trained[2] == trained[3] + 6  # six answers, six end-of-turn markers


def test_the_articles_chats_are_the_tests_chats(article):
    from distill import read_transcripts

    ours = [chat.messages for chat in read_transcripts(EXAMPLES / "article" / "chats.jsonl")]
    assert ours == [chat.messages for chat in read_transcripts(article)]
