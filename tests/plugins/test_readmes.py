"""The commands in the READMEs of plugin packages, the scaffold's included, do what they promise."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from article import ARTICLE

from distill.cli.main import main
from distill.scaffold import KINDS, new_plugin

PLUGINS = Path(__file__).parents[2] / "plugins"
NOT_RUN = {"distill-ollama": "needs Ollama", "distill-ray": "needs GPUs; its own tests run a Ray"}
PACKAGES = [module.parent for module in sorted(PLUGINS.glob("*/*.py")) if module.parent.name not in NOT_RUN]


def commands(readme: Path) -> list[list[str]]:
    """The words of each `distill` and `echo` command that a README shows, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", readme.read_text(encoding="utf-8"), re.S | re.M)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines if line.startswith(("distill ", "echo "))]


def run_all(package: Path, student: Path, folder: Path) -> None:
    """Run a README's commands in a folder, with a tiny student in place of the one it names."""
    (module,) = package.glob("*.py")
    lines = commands(package / "README.md")
    assert len(lines) >= 2, "a README shows how to list and how to use the plugin"
    questions = [{"turns": [text for role, text in chat if role == "user"]} for chat in ARTICLE]
    chats = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in ARTICLE]
    if not any(words[1] == "collect" for words in lines):
        (folder / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    used = {words[1] for words in lines}
    if "export" in used and "train" not in used:
        words = ["train", "transcripts.jsonl", "--student", str(student), "--out", "run", "--epochs", "1"]
        assert main([*words, "-T", "use_cpu=true"]) == 0
    for command, *words in lines:
        if command == "echo":
            text, _, file = words
            (folder / file).write_text(f"{text}\n")
            continue
        words = [str(student) if word in ("MODEL", "smollm2", "bigscience/bloom-560m") else word for word in words]
        assert main(["--plugin", str(module), *words]) == 0, words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with the built-in plugins only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_PLUGINS", "")
    monkeypatch.setenv("DISTILL_LEDGER", str(tmp_path / "ledger.sqlite3"))
    return tmp_path


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_of_the_packages(package, bloom, folder):
    run_all(package, bloom, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_scaffold(kind, bloom, folder):
    run_all(new_plugin("loud", kind, folder / "packages"), bloom, folder)
