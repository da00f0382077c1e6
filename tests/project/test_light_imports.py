"""What only tells about itself imports nothing heavy, with all of plugins/* installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from plugin_packages import PLUGINS, environment, install_all

from distill.cli.main import build_cli
from distill.plugins import PluginManager

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "trl",
    "peft",
    "accelerate",
    "numpy",
    "aiohttp",
    "babel",
    "pydantic",
    "yaml",
}

# A healthy run of `distill` ends without an exception, so that the last line of standard error is ours.
SCRIPT = """
import json, sys
from distill.cli.main import main
code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def commands(group, path=()):
    """All commands of the command line, those inside groups included, as words."""
    for name, command in sorted(group.commands.items()):
        yield [*path, name]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


OWN = list(commands(build_cli(PluginManager())))
OF_PLUGINS = [["babel-prompts"], ["ledger"]]


def imported(words):
    """Run `distill WORDS`; gives its exit code, standard output, and the top-level modules it imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)],
        env=environment([install_all()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, done.stdout, {module.partition(".")[0] for module in modules}


def test_all_commands_are_enumerated():
    result = imported(["--help"])[1]
    for command in (*OWN, *OF_PLUGINS):
        assert command[0] in result


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "--timing"],
        *([*command, "--help"] for command in (*OWN, *OF_PLUGINS)),
    ],
    ids=" ".join,
)
def test_imports_nothing_heavy(words):
    code, out, modules = imported(words)
    assert code == 0 and out
    assert not HEAVY & modules


def test_the_facade_and_the_installed_plugins_are_light():
    modules = ", ".join(sorted(file.stem for file in PLUGINS.glob("*/*.py")))
    code = f"import sys, distill, distill.testing, {modules}; print(*sys.modules)"
    environ = environment([install_all()])
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert not HEAVY & {module.partition(".")[0] for module in done.stdout.split()}


def test_an_error_before_the_work_starts_is_light(tmp_path):
    """A misspelt name is told at once, not after seconds of imports."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hello\n")
    out = str(tmp_path / "out.jsonl")
    code, _, modules = imported(["collect", str(prompts), "--teacher", "bable", "--out", out])
    assert code == 2
    assert not (HEAVY - {"aiohttp"}) & modules


def test_collecting_from_a_light_teacher_is_light(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is the Spanish name of Germany?\n")
    out = tmp_path / "out.jsonl"
    code, _, modules = imported(["collect", str(prompts), "--teacher", "babel", "--out", str(out)])
    assert code == 0
    assert "Alemania" in out.read_text(encoding="utf-8")
    assert not (HEAVY - {"babel"}) & modules
