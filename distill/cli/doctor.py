"""`distill doctor`: what is there to work with, and what is broken."""

from __future__ import annotations

from dataclasses import asdict

import click

from distill.cli.options import json_option
from distill.cli.terminal import print_json, printable
from distill.plugins import PluginManager

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


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

    broken, area = 0, ""
    for probe in examine(manager, self_test=self_test):
        broken += probe.state == "broken"
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
    return 1 if broken else 0
