"""`distill completion`, and what is completed: commands, options, and names of plugins, models and runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distill.cli.main import build_cli, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_distill(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_DISTILL_COMPLETE" in script and "distill" in script


@pytest.fixture
def complete(manager, tmp_path, monkeypatch):
    """Complete the last word of a command line."""
    from click.shell_completion import ShellComplete

    (tmp_path / "spanish").mkdir()
    (tmp_path / "spanish" / "run.json").write_text("{}")
    (tmp_path / "others").mkdir()
    monkeypatch.chdir(tmp_path)
    shell = ShellComplete(build_cli(manager), {}, "distill", "_DISTILL_COMPLETE")

    def run(line: str) -> list[str]:
        *words, last = line.split(" ")
        return [item.value for item in shell.get_completions(words, last) if item.type == "plain"]

    return run


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tra", ["train"]),
        ("train a.jsonl --hold", ["--hold-out"]),
        ("train a.jsonl --labeler ", ["copy", "masked", "trl"]),
        ("train a.jsonl --formatter ch", ["chat-template"]),
        ("train a.jsonl --overlong d", ["drop"]),
        ("train a.jsonl --labeler trl -L end", ["end_of_turn="]),
        ("train a.jsonl -L rea", ["reasoning="]),
        ("train a.jsonl -T warm", ["warmup_steps="]),
        ("collect p.txt --teacher re", ["replay"]),
        ("collect p.txt --teacher openai:m -T api_key", ["api_key_env="]),
        ("convert a b --to share", ["sharegpt"]),
        ("export spanish --to gg", ["gguf"]),
        ("export sp", ["spanish"]),
        ("compare ", ["spanish"]),
        ("chat sp", ["spanish"]),
    ],
)
def test_names_are_completed(complete, line, found):
    assert complete(line) == found


def test_a_shell_gets_the_completions(tmp_path):
    import os

    words = {"COMP_WORDS": "distill tra", "COMP_CWORD": "1", "_DISTILL_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-m", "distill"],
        env={**os.environ, **words},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,train"]
