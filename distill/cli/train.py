"""`distill train`: fine-tune a student on transcripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli.options import GroupedCommand, given, json_option, settings_options
from distill.cli.terminal import note, print_json, printable
from distill.pages.environment import counted
from distill.plugins import PluginManager
from distill.progress import StepProgress
from distill.runs.layout import RunPaths
from distill.settings import origins_of, settings_from
from distill.training.settings import TrainSettings

if TYPE_CHECKING:
    from distill.runs.manifest import Setting
    from distill.runs.report import TrainReport


@click.command("train", cls=GroupedCommand, short_help="Fine-tune a student on transcripts.")
@click.argument("data", nargs=-1, required=True, metavar="DATA…", type=click.Path(path_type=Path))
@settings_options(TrainSettings)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the newest complete checkpoint in RUN; the student is the same as without the interruption.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the settings and where each comes from, count rows, tokens and steps, estimate memory and disk; load no "
    "weights, write nothing.",
)
@json_option
@click.pass_obj
def command(
    manager: PluginManager, /, data: tuple[Path, ...], resume: bool, dry_run: bool, as_json: bool, **words: Any
) -> None:
    """Fine-tune a student on the conversations in DATA, and write the run folder RUN.

    DATA are JSON lines, or JSON arrays, of transcripts, OpenAI, ShareGPT, Alpaca or prompt/completion rows.

    RUN/model is the student: load it with `distill generate RUN` or with plain transformers. Every row is either
    trained, or listed with its reason in RUN/skipped.jsonl, or held out in RUN/held_out.jsonl. Labels are checked
    first, as by `distill check`; on an error nothing is trained.

    Ctrl-C (or SIGTERM) saves a checkpoint before it stops; --resume continues from there. Several GPUs or machines:
    `torchrun … -m distill train …`.

    \b
        distill train answers.jsonl --student smollm2 --out run
        distill train answers.jsonl --formatter special-tokens --labeler trl --out run
    """
    from distill.runs.manifest import resolved_settings
    from distill.training import train
    from distill.training.distributed import is_main_process

    words = given(words)
    settings = settings_from(TrainSettings, words, data=data)
    origins = {"data": "command line", **origins_of(TrainSettings, words, "command line")}
    with StepProgress() as on_log:
        report = train(settings, manager, resume=resume, dry_run=dry_run, on_log=on_log, note=note, origins=origins)
    if not is_main_process():
        return
    if as_json:
        found = {name: asdict(one) for name, one in resolved_settings(settings, origins).items()}
        print_json({**asdict(report), "settings": found} if dry_run else asdict(report))
        return
    if dry_run:
        _show_plan(report, resolved_settings(settings, origins))
    _show(report, dry_run)


def _show_plan(report: TrainReport, settings: Mapping[str, Setting]) -> None:
    """Print what a training would be, for people: settings with their origin, memory, disk."""
    for name, setting in settings.items():
        value = setting.value
        shown = value if isinstance(value, str) else ", ".join(value) if name == "data" else json.dumps(value)
        click.echo(f"{name:<28} {printable(shown):<40} {setting.origin}")
    saved = f"{report.saved_in}{', as its base' if settings['dtype'].value == 'auto' else ''}"
    click.echo(f"\n{'precision':<28} trained in float32, computed in {report.computed_in}, saved in {saved}")
    need = report.estimate
    if need is None:
        return
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "process")
    of = ", ".join(f"{part} {_size(getattr(need, part))}" for part in parts if getattr(need, part))
    click.echo(f"{'parameters':<28} {need.trained_parameters:,} trained, of {need.parameters:,}")
    click.echo(f"{'memory':<28} about {_size(need.peak_memory)} a process at its peak: {of}")
    click.echo(f"{'disk':<28} up to {_size(need.peak_disk)}, {_size(need.checkpoint)} of it each checkpoint\n")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _show(report: TrainReport, dry_run: bool) -> None:
    verb = "would train" if dry_run else "trained"
    loss = "" if report.loss is None else f", mean loss {report.loss:.4f}"
    note(f"{verb} {report.counts}{loss}")
    if report.held_out_rows:
        where = "" if dry_run else f", in {RunPaths(Path(report.out)).held_out}"
        note(f"held out {counted(report.held_out_rows, 'row')}{where}")
        if report.held_out_loss is not None:
            note(f"held-out loss {report.held_out_loss:.4f}")
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1])[:5]:
        note(f"skipped {count}: {reason}")
    if report.split_rows:
        note(f"{report.split_rows} rows were split by answer: the chat template shows earlier turns differently")
    if report.truncated:
        note(f"{report.truncated} examples were cut to the maximal length; they have no end-of-turn marker")
    if not dry_run:
        compare = f"; distill compare {report.out}" if report.held_out_rows else ""
        note(f"next: distill generate {report.out} 'your question'{compare}")
