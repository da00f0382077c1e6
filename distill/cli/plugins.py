"""`distill plugins`: what is installed, what it offers, and what is broken."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields

import click

from distill.cli.terminal import print_json, printable
from distill.plugins import KINDS, PluginManager, PluginRecord
from distill.specs import Spec

_FLAGS = {"teacher": "-T", "formatter": "-F", "labeler": "-L", "trainer": "-T"}


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a plugin.")
@click.option("--timing", is_flag=True, help="Show how long each took to load, and the heavy modules it pulled in.")
@click.option("--options", is_flag=True, help="Show the options of each name: the keys of -T, -F and -L.")
@click.pass_obj
def command(manager: PluginManager, as_json: bool, timing: bool, options: bool) -> None:
    """List the plugins, and the names they register."""
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
            click.echo(f"    {kind:10}{name:16}{printable(spec.summary if spec else '')}".rstrip())
            if options and kind in _FLAGS:
                _show_options(_FLAGS[kind], spec)
    for hook in record.hooks:
        click.echo(f"    observes  {hook}")


def _show_options(flag: str, spec: Spec) -> None:
    if spec.options is dict:
        return  # the summary says which keys it takes
    for field in fields(spec.options):
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        default = "" if field.default is MISSING else f" (default {field.default!r})"
        click.echo(f"        {flag} {field.name}={kind}{default}")
