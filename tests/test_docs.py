"""The documentation is generated, or run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_packages import distill

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]


def test_the_generated_parts_are_as_generated():
    words = [sys.executable, "-m", "cogapp", "--check", "-I", str(ROOT / "tests"), *PAGES]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `make docs`\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), link


def test_the_plugin_on_the_page_works(bloom, article, tmp_path):
    source = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "register_labelers" in block)
    plugin = tmp_path / "short.py"
    plugin.write_text(source)
    words = ["--plugin", plugin, "show", article, "--student", bloom, "--formatter", "special-tokens"]
    shown = distill(*words, "--labeler", "short", "--json", "-n", "1")
    assert shown.returncode == 0, shown.stderr
    row = json.loads(shown.stdout)
    trained = [token for token, label in zip(row["tokens"], row["labels"], strict=True) if label != -100]
    assert "".join(trained) == "perro</s>"
    words = ["--plugin", plugin, "check", article, "--student", bloom, "--labeler", "short"]
    assert distill(*words).returncode == 0


def test_every_command_has_help_and_every_option_a_word():
    import click

    from distill.cli.main import COMMANDS

    for command in COMMANDS:
        assert command.help, command.name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.name}"


@pytest.mark.parametrize("name", ["--labeler", "--formatter", "--trainer"])
def test_every_builtin_is_in_the_help(manager, name):
    from distill.cli.main import COMMANDS

    kind = name.strip("-")
    train = next(command for command in COMMANDS if command.name == "train")
    text = next(parameter.help for parameter in train.params if name in parameter.opts)
    for known in manager.registries[kind].names():
        assert known in text
