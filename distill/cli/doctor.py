"""`distill doctor`: what is there to work with, and what is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from distill.cli.options import json_option
from distill.cli.terminal import print_json, printable
from distill.plugins import PluginManager

_SIGNS = {"ok": ("✓", "green"), "unset": ("–", None), "warning": ("!", "yellow"), "broken": ("✗", "red")}


@click.command("doctor", short_help="Look at versions, devices, disk, keys, plugins.")
@click.option("--self-test", is_flag=True, help="Also train a tiny random student for one step, on the CPU.")
@json_option
@click.pass_obj
def command(manager: PluginManager, self_test: bool, as_json: bool) -> int:
    """Look at the environment: versions, devices, disk, keys, plugins.

    It contacts nothing, and shows no secret: of a key it says whether it is set. --json prints one object a thing. The
    exit code is 1 where something is broken.
    """
    from distill.diagnosis import examine

    count: Counter[str] = Counter()
    area = ""
    for probe in examine(manager, self_test=self_test):
        count[probe.state] += 1
        if as_json:
            print_json(asdict(probe))
            continue
        if probe.area != area:
            area = probe.area
            click.secho(area, bold=True)
        sign, colour = _SIGNS[probe.state]
        click.secho(f"  {sign} ", fg=colour, nl=False)
        click.echo(printable(f"{probe.name}: {probe.detail}"))
        if probe.hint:
            click.echo(f"      → {printable(probe.hint)}")
    if not as_json:
        click.echo(_summary(count["broken"], count["warning"]))
    return 1 if count["broken"] else 0


def _summary(broken: int, warnings: int) -> str:
    """The last line: what there is to do."""
    if not broken and not warnings:
        return "All is well."
    found = [f"{broken} broken"] if broken else []
    if warnings:
        found.append(f"{warnings} warning" + ("s" if warnings > 1 else ""))
    return ", ".join(found) + ": see the lines with ✗ and !"
