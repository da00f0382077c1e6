"""`distill plugins`: what is installed, what it offers, and what is broken."""

from __future__ import annotations

from dataclasses import asdict

import click

from distill.cli.terminal import print_json, printable
from distill.plugins import KINDS, PluginManager, PluginRecord


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a plugin.")
@click.option("--timing", is_flag=True, help="Show how long each took to load, and the heavy modules it pulled in.")
@click.pass_obj
def command(manager: PluginManager, as_json: bool, timing: bool) -> None:
    """List the plugins, and the names they register."""
    for record in manager.records:
        if as_json:
            print_json(asdict(record))
        else:
            _show(manager, record, timing)


def _show(manager: PluginManager, record: PluginRecord, timing: bool) -> None:
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
            summary = manager.registries[kind].get(name).summary if kind in KINDS else ""
            click.echo(f"    {kind:10}{name:16}{printable(summary)}".rstrip())
    for hook in record.hooks:
        click.echo(f"    observes  {hook}")
