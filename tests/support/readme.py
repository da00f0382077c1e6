"""The generated parts of README.md and docs/, as cog calls them: help, hooks, and slices of tested code."""

from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path

import click
from floors import FLOORS

from distill import hookspecs, testing
from distill.builtin.teachers import statuses
from distill.chat import session as chat
from distill.cli.main import build_cli
from distill.dataset.findings import CODES
from distill.plugins import KINDS, make_plugin_manager

ROOT = Path(__file__).parents[2]


def manager():
    """The built-in plugins only: the page is the same on every machine."""
    return make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


def help_of(*commands: str) -> str:
    """What `distill COMMAND --help` prints, in a terminal 100 columns wide."""
    os.environ.pop("COLUMNS", None)
    cli = build_cli(manager())
    texts = []
    for name in commands:
        command = cli
        for word in name.split():
            command = command.commands[word]
        words = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
        with click.Context(command, info_name=f"distill {name}", **words) as context:
            texts.append(f"```text\n$ distill {name} --help\n{command.get_help(context)}\n```\n")
    return "\n" + "\n".join(texts)


def help_of_all() -> str:
    """Every command's help under a heading of its own; those of `plugins` are in plugins.md."""
    return "\n" + "\n".join(f"## {name}\n{help_of(name)}" for name in build_cli(manager()).commands)


def index(folder: str) -> str:
    """The table of docs/README.md, its links as seen from the folder above `folder`."""
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    table = "".join(line for line in text.splitlines(keepends=True) if line.startswith("|"))
    linked = re.sub(r"\]\((?!\.\./)", f"]({folder}", table)
    return "\n" + re.sub(r"\]\(\.\./(README\.md(?=#))?", "](", linked)


def rooms_table() -> str:
    """The rooms under `distill/`, floor by floor, each with the first line of its docstring."""
    rows = ["| | |", "|---|---|"]
    for floor in FLOORS:
        for room in floor:
            folder, file = ROOT / "distill" / room / "__init__.py", ROOT / "distill" / f"{room}.py"
            path = folder if folder.is_file() else file
            if not path.is_file():
                continue
            summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            name = f"{room}/" if path is folder else f"{room}.py"
            rows.append(f"| [`{name}`](../distill/{name}) | {summary} |")
        if floor is not FLOORS[-1]:
            rows.append("| | |")
    return "\n" + "\n".join(rows) + "\n"


def findings_table() -> str:
    """What `distill check` may find, the worst first."""
    rows = ["| code | | what is the matter | what to do |", "|---|---|---|---|"]
    order = ("error", "warning", "note")
    for name, code in sorted(CODES.items(), key=lambda item: order.index(item[1].severity)):
        rows.append(f"| `{name}` | {code.severity} | {_cell(code.meaning)} | {_cell(code.hint)} |")
    return "\n" + "\n".join(rows) + "\n"


def status_table() -> str:
    """What each HTTP status means for a row and for a run."""
    return "\n" + statuses.table() + "\n"


def chat_table() -> str:
    """What may be typed in `distill chat` besides messages."""
    rows = ["| | |", "|---|---|", *(f"| `{name}` | {_cell(what)} |" for name, what in chat.COMMANDS.items())]
    return "\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    """A text in a table: options as code."""
    return re.sub(r"(?<![`\w-])(--?[a-zA-Z][\w-]*(?: [\w.-]+=\w+)?)", r"`\1`", text)


def plugins_table() -> str:
    """The built-in plugins by kind."""
    rows = ["| kind | name | |", "|---|---|---|"]
    for kind in KINDS:
        rows += [f"| {kind} | `{spec.name}` | {spec.summary} |" for spec in manager().registries[kind]]
    return "\n" + "\n".join(rows) + "\n"


def hooks_table() -> str:
    """Every hook with its signature and the first line of its contract."""
    rows = ["| hook | |", "|---|---|"]
    for name, function in hooks().items():
        rows.append(f"| `{name}{signature_of(function)}` | {inspect.getdoc(function).splitlines()[0]} |")
    return "\n" + "\n".join(rows) + "\n"


def hooks():
    """Every hook, by name."""
    return {name: function for name, function in vars(hookspecs).items() if hasattr(function, "distill_spec")}


def signature_of(function) -> str:
    """A function's signature, without the noise."""
    return str(inspect.signature(function)).replace("'", "").replace(" -> None", "")


def hooks_reference() -> str:
    """Every hook with its exact signature and its whole contract."""
    texts = []
    for name, function in hooks().items():
        first, _, rest = inspect.getdoc(function).partition("\n\n")
        items: list[str] = []
        for line in rest.splitlines():
            if line.startswith(" "):
                items[-1] += " " + line.strip()
            else:
                what, _, text = line.partition(": ")
                items.append(f"* *{what}*: {text}")
        texts += [f"### `{name}`", f"```python\n{name}{signature_of(function)}\n```", first, "\n".join(items)]
    return "\n" + "\n\n".join(texts) + "\n"


def testing_table() -> str:
    """Everything in `distill.testing` with the first sentence of its docstring."""
    rows = ["| `distill.testing.` | |", "|---|---|"]
    for name in testing.__all__:
        value = getattr(testing, name)
        if callable(value):
            rows.append(f"| `{name}` | {inspect.getdoc(value).splitlines()[0]} |")
    return "\n" + "\n".join(rows) + "\n"


def source_of(file: str, *names: str) -> str:
    """Classes, functions (`Class.method` too) and assigned names of a tested file, as they stand there.

    Args:
        file: from the top of the repository.
        names: what to show, in this order; `Class` alone is the whole of it.
    """
    text = (ROOT / file).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    lines = text.splitlines()
    for node in ast.parse(text).body:
        for name, one in _named(node):
            first = min([one.lineno, *(decorator.lineno for decorator in getattr(one, "decorator_list", []))])
            found[name] = inspect.cleandoc("\n" + "\n".join(lines[first - 1 : one.end_lineno]))
    shown = "\n\n\n".join(found[name] for name in names)
    return f"\n```python\n# {file}\n{shown}\n```\n"


def _named(node: ast.stmt, inside: str = ""):
    if isinstance(node, ast.Assign):
        yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield inside + node.name, node
        for child in node.body if isinstance(node, ast.ClassDef) else []:
            yield from _named(child, f"{node.name}.")
