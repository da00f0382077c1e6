"""`distill export`: a trained student in the shape that others load."""

from __future__ import annotations

from pathlib import Path

import click

from distill.cli.options import json_option
from distill.cli.terminal import note, print_json
from distill.plugins import PluginManager


@click.command("export")
@click.argument("run", metavar="RUN")
@click.option(
    "--to",
    type=click.Choice(["merged"]),
    required=True,
    help="merged: a folder of safetensors, LoRA adapters merged in, as transformers, vLLM and llama.cpp load it.",
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The folder to make.")
@json_option
@click.pass_obj
def command(manager: PluginManager, run: str, to: str, out: Path, as_json: bool) -> None:
    """Write the student of RUN to DIR, to be loaded without distill.

    DIR holds the weights, the tokenizer with the chat format of the training, and a generation config that stops at the
    end-of-turn marker. It appears whole or not at all.
    """
    from distill.export import export_merged

    files = export_merged(run, out, manager)
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print_json({"out": str(out), "to": to, "files": [str(path.relative_to(out)) for path in files], "bytes": size})
    else:
        note(f"{out}: {len(files)} files, {size / 1e6:.0f} MB")
