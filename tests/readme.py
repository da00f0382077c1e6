"""The generated parts of README.md, as cog calls them: the help of each command, and the tables of hooks."""

from __future__ import annotations

import inspect
import os

import click

from distill import hookspecs
from distill.cli.main import build_cli
from distill.plugins import KINDS, make_plugin_manager


def manager():
    """The built-in plugins only: the page is the same on every machine."""
    return make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


def help_of(*commands: str) -> str:
    """What `distill COMMAND --help` prints, in a terminal 100 columns wide."""
    os.environ.pop("COLUMNS", None)
    cli = build_cli(manager())
    texts = []
    for name in commands:
        words = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
        with click.Context(cli.commands[name], info_name=f"distill {name}", **words) as context:
            texts.append(f"```text\n$ distill {name} --help\n{cli.commands[name].get_help(context)}\n```\n")
    return "\n" + "\n".join(texts)


def plugins_table() -> str:
    """The built-in plugins by kind."""
    rows = ["| kind | name | |", "|---|---|---|"]
    for kind in KINDS:
        rows += [f"| {kind} | `{spec.name}` | {spec.summary} |" for spec in manager().registries[kind]]
    return "\n" + "\n".join(rows) + "\n"


def hooks_table() -> str:
    """Every hook with its signature and the first line of its contract."""
    rows = ["| hook | |", "|---|---|"]
    for name, function in vars(hookspecs).items():
        if callable(function) and hasattr(function, "distill_spec"):
            signature = str(inspect.signature(function)).replace("'", "").replace(" -> None", "")
            rows.append(f"| `{name}{signature}` | {inspect.getdoc(function).splitlines()[0]} |")
    return "\n" + "\n".join(rows) + "\n"
