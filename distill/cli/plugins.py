"""`distill plugins`: list what is installed, write a new plugin, check one against its contract."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill.cli.terminal import note, print_json, printable
from distill.options import HasOptions, describe_options, parse_pairs
from distill.plugins import KINDS, PluginManager, PluginRecord
from distill.scaffold import KINDS as NEW_KINDS
from distill.scaffold import Kind, new_plugin

if TYPE_CHECKING:
    from distill.testing import Outcome

_REST = "all others: https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"

_FLAGS = {"teacher": "-T", "formatter": "-F", "labeler": "-L", "trainer": "-T", "exporter": "-O", "loss": "-O"}


@click.group("plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per plugin.")
@click.option("--timing", is_flag=True, help="Show how long each took to load, and the heavy modules it pulled in.")
@click.option("--options", is_flag=True, help="Show the options of each name: the keys of -T, -F, -L and -O.")
@click.pass_context
def command(context: click.Context, as_json: bool, timing: bool, options: bool) -> None:
    """List the plugins, and the names they register."""
    if context.invoked_subcommand is not None:
        if as_json or timing or options:
            raise click.UsageError(f"options of `plugins {context.invoked_subcommand}` go after its name", context)
        return
    manager: PluginManager = context.obj
    for record in manager.records:
        if as_json:
            print_json(asdict(record))
        else:
            _show(manager, record, timing, options)


def _show(manager: PluginManager, record: PluginRecord, timing: bool, options: bool) -> None:
    where = f"{record.distribution} {record.version}" if record.distribution else record.origin
    click.secho(record.name, bold=True, nl=False)
    click.echo(f"  ({where})" + (f"  {record.seconds * 1000:.1f} ms" if timing else ""))
    if timing and record.heavy:
        click.echo(f"    imported {', '.join(record.heavy)}")
    if record.error:
        click.secho(f"    broken: {printable(record.error)}", fg="red")
        return
    for kind, names in record.registers.items():
        for name in names:
            spec = manager.registries[kind].get(name) if kind in KINDS else None
            click.echo(f"    {kind:10}{name:15} {printable(spec.summary if spec else '')}".rstrip())
            if options and spec is not None and kind in _FLAGS:
                _show_options(_FLAGS[kind], spec)
    for hook in record.hooks:
        click.echo(f"    observes  {hook}")


def _show_options(flag: str, spec: HasOptions) -> None:
    """Print the options of a component: type, default, meaning."""
    for option in describe_options(spec.options):
        default = "" if option.default is None else f"  (default {option.default})"
        click.echo(printable(f"        {flag} {option.name}={option.type}{default}"))
        _show_meaning(option.meaning)
    for name, meaning in getattr(spec, "option_help", {}).items():
        click.echo(printable(f"        {flag} {name}=…"))
        _show_meaning(meaning)
    if getattr(spec, "option_help", {}):
        click.echo(f"        … {_REST}")


def _show_meaning(text: str) -> None:
    if text:
        indent = " " * 12
        click.echo(textwrap.fill(printable(text), 110, initial_indent=indent, subsequent_indent=indent))


@command.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(NEW_KINDS), required=True, help="What it offers.")
@click.option(
    "--in",
    "parent",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=".",
    help="Make the package's folder in here.  [default: the current folder]",
)
@click.pass_obj
def new(manager: PluginManager, name: str, kind: Kind, parent: Path) -> None:
    """Write the package of a new plugin.

    distill-NAME offers NAME, installs, is found, and passes its own tests as it is.

    \b
        distill plugins new shout --kind formatter
        pip install -e distill-shout
        distill plugins check shout
    """
    folder = new_plugin(name, kind, parent, manager)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(str(file))
    note(f"next: pip install -e {folder} && distill plugins check {folder.name.removeprefix('distill-')}")


@command.command("check")
@click.argument("name")
@click.option(
    "-T",
    "-F",
    "-L",
    "-O",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of NAME, as its command takes it.",
)
@click.option("--kind", type=click.Choice(NEW_KINDS), help="What NAME is, where several kinds have the name.")
@click.option("--ask", metavar="TEXT", help="Ask a teacher this, for 16 tokens at most; it may cost money.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
@click.pass_obj
def check(
    manager: PluginManager, name: str, pairs: tuple[str, ...], kind: str | None, ask: str | None, as_json: bool
) -> int:
    """Hold a plugin to its contract.

    NAME is a teacher's (NAME:MODEL), formatter's, labeler's, trainer's, loss's or exporter's name, or a whole plugin's.

    Each promise is a line: kept ✓, broken ✗ with what, in which conversation, and what to do, or ! for what breaks
    nothing but should be known. Formatters and labelers are tried on conversations and tokenizers of every kind,
    trainers and exporters on a tiny student. A teacher is only built, unless --ask says what to ask it. Exit code 1: a
    promise is broken.

    The same checks are in `distill.testing`, for a plugin's own tests.
    """
    from distill.models.load import quiet
    from distill.testing import check_named

    counts = {"passed": 0, "failed": 0, "noted": 0}
    with quiet():
        checked = check_named(manager, name, parse_pairs(pairs, "-T, -F, -L or -O"), kind=kind, ask=ask)
    for one in checked:
        if not as_json:
            click.secho(f"{one.kind} {one.name}", bold=True, nl=False)
            click.echo(f"  ({one.owner})")
        for outcome in one.outcomes:
            counts[outcome.status] += 1
            if as_json:
                print_json({"kind": one.kind, "name": one.name, "plugin": one.owner, **asdict(outcome)})
            else:
                _show_outcome(outcome)
        if one.kind == "teacher" and ask is None:
            note(f"teacher {one.name} was asked nothing; --ask 'Say hello.' sends it one request")
    if not as_json:
        click.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count or status == "passed"))
    return 1 if counts["failed"] else 0


def _show_outcome(outcome: Outcome) -> None:
    sign, colour = {"passed": ("✓", "green"), "failed": ("✗", "red"), "noted": ("!", "yellow")}[outcome.status]
    click.secho(f"  {sign} ", fg=colour, nl=False)
    click.echo(outcome.check)
    if outcome.reason:
        click.echo(f"      {printable(outcome.reason)}")
