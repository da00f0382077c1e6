"""The examples run as their pages say, here with a tiny BLOOM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_the_rows_and_the_recipe_of_context_distillation(tmp_path):
    from distill.collection.prompts import open_prompts
    from distill.recipes.schema import load_recipe
    from distill.transcripts.reader import read_transcripts

    folder = EXAMPLES / "context-distillation"
    subprocess.run([sys.executable, folder / "rows.py", "1"], cwd=tmp_path, check=True)
    recipe, _ = load_recipe(folder / "dates.yaml")
    assert recipe.compare.prompted_base
    with open_prompts(tmp_path / recipe.prompts) as opened:
        asked = list(opened.read())
    held = list(read_transcripts(tmp_path / recipe.compare.data[0]))
    questions = {one.messages[0].content for one in (*asked, *held)}
    assert (len(asked), len(held), len(questions)) == (96, 60, 156), "no question is on both sides"
    shown = held[0].metadata["teacher_messages"]
    assert len(shown) == 12 and [one["content"] for one in shown] == [one.content for one in asked[0].teacher_messages]


def test_the_quickstarts_recipe(bloom, tmp_path, capsys):
    """As it is shipped, but for a tiny student, a few prompts, and one step; edited files stay as they are."""
    from distill.cli.main import main
    from distill.recipes import write_quickstart

    path = write_quickstart(tmp_path / "quick")
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("student: smollm2 ", f"student: {bloom} "),
        ("teacher: replay:", "limit: 8\n  teacher: replay:"),
        ("max-tokens: 32", "max-tokens: 4\n  limit: 4"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    assert write_quickstart(path.parent) == path and path.read_text(encoding="utf-8") == text
    assert main(["run", str(path)]) in (0, 1)
    out = capsys.readouterr().out
    assert "student against its base: " in out and str(path.parent / "comparison.html") in out
    assert (path.parent / "run" / "model").is_dir()


def test_the_recipe_for_soft_labels(bloom, tmp_path, capsys):
    """What it would do, with a tiny student: answers with their likeliest tokens, trained towards them."""
    import shutil

    from distill.cli.main import main

    shutil.copytree(EXAMPLES / "soft-labels", tmp_path / "soft")
    recipe = tmp_path / "soft" / "soft.yaml"
    text = recipe.read_text(encoding="utf-8")
    for old, new in (
        ("teacher: smollm2", f"teacher: transformers:{bloom}"),
        ("student: student ", f"student: {bloom} "),
    ):
        assert old in text
        text = text.replace(old, new)
    recipe.write_text(text, encoding="utf-8")
    assert main(["run", str(recipe), "--dry-run"]) == 0, capsys.readouterr().err
    recipe.write_text(text.replace("loss: soft-labels", "loss: soft-labelz"), encoding="utf-8")
    assert main(["run", str(recipe), "--dry-run"]) == 2
    assert "soft-labels" in capsys.readouterr().err


def test_the_articles_chats_are_the_tests_chats(article):
    from distill import read_transcripts

    ours = [chat.messages for chat in read_transcripts(EXAMPLES / "article" / "chats.jsonl")]
    assert ours == [chat.messages for chat in read_transcripts(article)]
