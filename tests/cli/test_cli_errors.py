"""A user's mistakes: one clear error, the way out, no traceback, the exit code of the design."""

from __future__ import annotations

import pytest

from distill.cli.main import main

TRAIN = ["train", "{data}", "--student", "{bloom}", "--out", "{out}"]


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (
            [*TRAIN, "--labeler", "maskd"],
            2,
            "unknown labeler 'maskd'",
            "did you mean 'masked'? known: copy, masked",
        ),
        ([*TRAIN, "--formatter", "chat-tmplate"], 2, "unknown formatter", "did you mean 'chat-template'"),
        ([*TRAIN, "--trainer", "hff"], 2, "unknown trainer 'hff'", "did you mean 'hf'? known: hf"),
        ([*TRAIN, "-L", "end_of_turm=true", "--labeler", "trl"], 2, "unknown option of labeler", "end_of_turn"),
        ([*TRAIN, "-L", "end_of_turn=maybe", "--labeler", "trl"], 2, "takes bool, not 'maybe'", None),
        ([*TRAIN, "-F", "nonsense"], 2, "-F 'nonsense' is not key=value", None),
        ([*TRAIN, "-F", "template={out}/none.jinja"], 2, "cannot be read", None),
        (["train", "{out}/none.jsonl", "--student", "{bloom}", "--out", "{out}"], 1, "none.jsonl: No such file", None),
        (["train", "{empty}", "--student", "{bloom}", "--out", "{out}"], 1, "is empty", None),
        (["train", "{broken}", "--student", "{bloom}", "--out", "{out}"], 1, "broken.jsonl:2: ", "one JSON object"),
        (["train", "{role}", "--student", "{bloom}", "--out", "{out}"], 1, "unknown role 'bot'", "the roles are"),
        (["train", "{sharegpt}", "--student", "{bloom}", "--out", "{out}"], 1, "no list of `conversations`", None),
        (["train", "{data}", "--student", "./none", "--out", "{out}"], 2, "no model at './none'", "model folder"),
        (["train", "{data}", "--student", "{out}/x.gguf", "--out", "{out}"], 2, "no model at", ".gguf file"),
        (
            ["train", "{data}", "--student", "nobody/nothing", "--out", "{out}"],
            1,
            "not on this machine",
            "check the name",
        ),
        (["train", "{data}", "--student", "{folder}", "--out", "{out}"], 2, "holds no model", None),
        (["train", "{data}", "--student", "{bloom}", "--out", "{data}"], 2, "is a file", None),
        (
            ["train", "{data}", "--student", "{bloom}", "--out", "{out}", "--max-length", "5"],
            1,
            "longer than 5",
            "54 keeps 100 %",
        ),
        (["generate", "./none", "hi"], 2, "no model at", None),
        (["generate", "{bloom}", " "], 2, "a prompt is empty", None),
        (["generate", "{bloom}", "hi", "--answer", "x"], 2, "--answer goes with --trace", None),
        (["show", "{data}", "--student", "./none"], 2, "no model at", None),
    ],
)
def test_mistakes(words, code, error, hint, bloom, article, tmp_path, capfd):
    row = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    files = {
        "empty": "",
        "broken": row + "{nonsense\n",
        "role": row.replace("user", "bot"),
        "sharegpt": '{"conversations": []}\n',
    }
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "folder").mkdir()
    names = {name: tmp_path / f"{name}.jsonl" for name in files}
    names |= {"data": article, "bloom": bloom, "out": tmp_path / "run", "folder": tmp_path / "folder"}
    assert main([word.format(**names) for word in words]) == code
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith("Hint: ")]
    assert len(lines) == 1 and lines[0].startswith("Error: ") and error in lines[0]
    assert hint is None or hint in err
    assert not (tmp_path / "run").exists()


def test_show_says_what_the_collator_gets(bloom, article, capsys):
    import json

    for labeler in ("copy", "masked", "trl"):
        words = ["show", str(article), "--student", str(bloom), "--formatter", "special-tokens", "--labeler", labeler]
        assert main([*words, "--json", "--all"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 5
        for row in rows:
            assert set(row) == {"row", "id", "token_ids", "tokens", "labels", "trained"}
            assert len(row["token_ids"]) == len(row["tokens"]) == len(row["labels"])
        assert main([*words, "-n", "1"]) == 0
        shown = capsys.readouterr().out
        assert ("⟦perro</s>⟧" in shown) == (labeler != "copy")


def test_show_in_colours(bloom, article):
    """In a terminal: trained tokens green, others dim, special ones in reverse video."""
    import click
    from click.testing import CliRunner

    from distill.cli.main import build_cli
    from distill.plugins import make_plugin_manager

    cli = build_cli(make_plugin_manager(environ={"DISTILL_PLUGINS": ""}))
    words = ["show", str(article), "--student", str(bloom), "--formatter", "special-tokens", "-n", "1"]
    shown = CliRunner().invoke(cli, words, color=True).output
    assert click.style("</s>", fg="green", dim=False, reverse=True) in shown
    assert click.style("<s>", dim=True, reverse=True) in shown
