"""`distill quickstart`: the main job, from prompts to a measured student."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill.cli.options import json_option
from distill.cli.terminal import note, print_json, printable
from distill.cli.train import Progress
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from distill.quickstart import QuickstartResult

_SHOWN = 5


@click.command("quickstart", short_help="Run the main job once, without a hub or a key.")
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
    """Run the main job once, on real weights, without a hub or a key.

    A teacher that knows the Spanish names of all countries answers 216 prompts; SmolLM2-135M is trained on its
    answers; 40 held-out prompts are asked before and after. It takes a few minutes on two cores, and needs the
    plugins distill-smollm2 and distill-babel (`make quickstart` installs all).
    """
    from distill.quickstart import quickstart

    progress = Progress()
    try:
        result = quickstart(out, manager, epochs=epochs, note=note, on_log=progress)
    finally:
        progress.close()
    if as_json:
        print_json(asdict(result))
    else:
        _show(result)


def _show(result: QuickstartResult) -> None:
    click.echo(f"\nSame answer as the teacher, on {result.held_out} prompts that were never trained on:")
    click.secho(f"    base     {result.base_right:2} of {result.held_out}")
    click.secho(f"    student  {result.student_right:2} of {result.held_out}", bold=True)
    click.echo(f"in {result.seconds:.0f} s.\n")
    rows = [("prompt", "base", "student", "teacher")]
    rows += [(row.prompt, row.base, row.student, row.teacher) for row in result.answers[:_SHOWN]]
    for row in rows:
        click.echo("  ".join(_cut(printable(text), width) for text, width in zip(row, (44, 24, 16, 16), strict=True)))
    click.echo("\nNext:")
    click.echo(f"    distill generate {result.run} 'How do you say \"Japan\" in Spanish? Answer with the name only.'")


def _cut(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':<{width}}"
