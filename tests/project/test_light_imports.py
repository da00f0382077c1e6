"""Help and listings import nothing heavy, with all of plugins/* installed."""

from __future__ import annotations

import json
import subprocess
import sys

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

# Each command line is run in turn, in one process; a module counts for the first one that imports it.
SCRIPT = """
import contextlib, io, json, sys
from distill.cli.main import main
seen, results = set(), []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    new = {module.partition(".")[0] for module in sys.modules} - seen
    seen |= new
    results.append({"code": code, "out": out.getvalue(), "err": err.getvalue(), "imported": sorted(new)})
print(json.dumps(results))
"""


def commands(group, path=()):
    """All commands of the command line, those inside groups included, as words."""
    for name, command in sorted(group.commands.items()):
        yield [*path, name]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


OWN = list(commands(build_cli(PluginManager())))
OF_PLUGINS = [["babel-prompts"], ["ledger"]]


def results_of(*lines):
    """Run `distill WORDS` for each list of words, in one process; gives code, output and new top-level modules each."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)],
        env=environment([install_all()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    results = json.loads(done.stdout)
    for result in results:
        result["heavy"] = HEAVY.intersection(result["imported"])
    return results


def test_help_and_listings_import_nothing_heavy():
    """As a command that runs after others is blamed for what it adds, each one is seen; the order does not matter."""
    lines = [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "--timing"],
        *([*command, "--help"] for command in (*OWN, *OF_PLUGINS)),
    ]
    results = results_of(*lines)
    assert all(command[0] in results[0]["out"] for command in (*OWN, *OF_PLUGINS)), "--help lists all commands"
    failed = [words for words, result in zip(lines, results, strict=True) if result["code"] or not result["out"]]
    heavy = {" ".join(words): found for words, result in zip(lines, results, strict=True) if (found := result["heavy"])}
    assert not failed and not heavy


def test_the_facade_and_the_installed_plugins_are_light():
    modules = ", ".join(sorted(file.stem for file in PLUGINS.glob("*/*.py")))
    code = f"import sys, distill, distill.testing, {modules}; print(*sys.modules)"
    environ = environment([install_all()])
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert not HEAVY & {module.partition(".")[0] for module in done.stdout.split()}


def test_an_error_before_the_work_starts_is_light(tmp_path):
    """A misspelt name is reported at once, not after seconds of imports."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Hello\n")
    out = str(tmp_path / "out.jsonl")
    (result,) = results_of(["collect", str(prompts), "--teacher", "bable", "--out", out])
    assert result["code"] == 2
    assert not result["heavy"] - {"aiohttp"}


def test_collecting_from_a_light_teacher_is_light(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is the Spanish name of Germany?\n")
    out = tmp_path / "out.jsonl"
    (result,) = results_of(["collect", str(prompts), "--teacher", "babel", "--out", str(out)])
    assert result["code"] == 0
    assert "Alemania" in out.read_text(encoding="utf-8")
    assert not result["heavy"] - {"babel"}
