"""`distill train`: fine-tune a student on transcripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from distill.cli.options import (
    allow_option,
    formatter_options,
    from_option,
    json_option,
    labeler_options,
    student_option,
    turns_option,
)
from distill.cli.terminal import note, print_json, printable
from distill.errors import UsageError
from distill.options import parse_pairs
from distill.plugins import PluginManager
from distill.runs.layout import RunPaths

if TYPE_CHECKING:
    from distill.runs.manifest import Setting
    from distill.runs.report import TrainReport
    from distill.training import LoraSettings


_ORIGINS = {ParameterSource.COMMANDLINE: "command line", ParameterSource.ENVIRONMENT: "environment"}

_LORA = {"lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "lora_targets": "target_modules"}


def _lora_options(function: Callable) -> Callable:
    """`--lora`, `--qlora` and the adapters' shape."""
    for option in (
        click.option(
            "--lora-targets",
            metavar="NAMES",
            help="The layers to adapt, e.g. q_proj,v_proj.  [default: all linear layers but the output head]",
        ),
        click.option(
            "--lora-dropout", type=click.FloatRange(0, 1, max_open=True), help="On the adapters' input.  [default: 0]"
        ),
        click.option(
            "--lora-alpha", type=click.IntRange(min=1), help="The change is scaled by alpha / rank.  [default: 32]"
        ),
        click.option("--lora-rank", type=click.IntRange(min=1), help="Of the adapters' matrices.  [default: 16]"),
        click.option("--qlora", is_flag=True, help="--lora on a base in 4 bits; needs bitsandbytes and a GPU."),
        click.option(
            "--lora",
            is_flag=True,
            help="Train adapters only (try --learning-rate 2e-4); RUN/model is the student with them merged in.",
        ),
    ):
        function = option(function)
    return function


@click.command("train", short_help="Fine-tune a student on transcripts.")
@click.argument("data", nargs=-1, required=True, metavar="DATA…", type=click.Path(path_type=Path))
@from_option
@student_option
@click.option("--out", required=True, metavar="RUN", type=click.Path(path_type=Path), help="The run folder to make.")
@formatter_options
@labeler_options
@turns_option
@click.option(
    "--trainer",
    metavar="NAME",
    default="hf",
    show_default=True,
    help="hf (transformers' Trainer), trl (TRL's SFTTrainer), or a plugin's.",
)
@click.option(
    "-T",
    "trainer_options",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the trainer: any TrainingArguments (hf) or SFTConfig (trl) field, e.g. -T warmup_steps=10.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Passes over the data.",
)
@click.option(
    "--batch-size",
    "per_device_train_batch_size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Sequences a device and forward pass.",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Instead of --batch-size: as many sequences of like length as have N tokens together, padding included.",
)
@click.option(
    "--packing",
    is_flag=True,
    help="Lay the rows of a forward pass end to end instead of padding them, if the student is proved to keep them "
    "apart; else they are padded, and it says why. The losses stay the same. On a CPU it does not pay with "
    "--batch-tokens.",
)
@click.option(
    "--accumulation",
    "gradient_accumulation_steps",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Forward passes an optimizer step.",
)
@click.option("--learning-rate", type=click.FloatRange(min=0), default=5e-5, show_default=True, help="The highest one.")
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    help="The most tokens of an example.  [default: what the student can take]",
)
@click.option(
    "--overlong",
    type=click.Choice(["error", "drop", "truncate"]),
    default="error",
    show_default=True,
    help="What to do with longer ones: refuse to start, leave the row out, or cut its end off.",
)
@allow_option
@click.option(
    "--hold-out",
    metavar="N|N%",
    help="Keep a share of the conversations (10%), or so many, from training, chosen by their prompts, for `distill "
    "compare`: they are written to RUN/held_out.jsonl.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For shuffling, dropout and --hold-out.")
@click.option(
    "--save-steps",
    type=click.IntRange(min=1),
    help="A checkpoint every so many steps.  [default: each epoch and every 15 minutes, where it takes < 10 % of the "
    "time]",
)
@click.option(
    "--save-total-limit",
    type=click.IntRange(min=1),
    help="How many checkpoints to keep, after the end too.  [default: 2, and none after the end]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the newest complete checkpoint in RUN: the student is the same as without the stop.",
)
@_lora_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the settings and where each comes from, count rows, tokens and steps, estimate memory and disk; load no "
    "weights, write nothing.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, data: tuple[Path, ...], resume: bool, dry_run: bool, as_json: bool, **words: Any
) -> None:
    """Fine-tune a student on the conversations in DATA, and write the run folder RUN.

    DATA are JSON lines, or JSON arrays, of transcripts, OpenAI, ShareGPT, Alpaca or prompt/completion rows.

    RUN/model is the student: load it with `distill generate RUN` or with plain transformers. Every row is trained,
    stands in RUN/skipped.jsonl with its reason, or in RUN/held_out.jsonl. The labels are proved first, as
    `distill check` does; on an error nothing is trained.

    Stopped with Ctrl-C (or SIGTERM), it writes a checkpoint first; --resume goes on from there. Several GPUs or
    machines: `torchrun … -m distill train …`.

    \b
        distill train answers.jsonl --student smollm2 --out run
        distill train answers.jsonl --formatter special-tokens --labeler trl --out run
    """
    from distill.runs.manifest import resolved_settings
    from distill.training import TrainSettings, train
    from distill.training.distributed import is_main_process

    manager: PluginManager = context.obj
    for kind, flag in (("formatter", "-F"), ("labeler", "-L"), ("trainer", "-T")):
        words[f"{kind}_options"] = parse_pairs(words[f"{kind}_options"], flag)
    lora = _lora_settings(words)
    settings = TrainSettings(data=data, lora=lora, **words)
    sources = {one.name: context.get_parameter_source(one.name) for one in fields(settings)}
    if settings.batch_tokens is not None and sources["per_device_train_batch_size"] is ParameterSource.COMMANDLINE:
        raise UsageError("--batch-size and --batch-tokens exclude each other", "a batch is counted in one or the other")
    origins = {name: _ORIGINS[source] for name, source in sources.items() if source in _ORIGINS}
    progress = Progress()
    try:
        report = train(settings, manager, resume=resume, dry_run=dry_run, on_log=progress, note=note, origins=origins)
    finally:
        progress.close()
    if not is_main_process():
        return
    if as_json:
        found = {name: asdict(one) for name, one in resolved_settings(settings, origins).items()}
        print_json({**asdict(report), "settings": found} if dry_run else asdict(report))
        return
    if dry_run:
        _show_plan(report, resolved_settings(settings, origins))
    _show(report, dry_run)


def _lora_settings(words: dict[str, Any]) -> LoraSettings | None:
    """Take the options of `_lora_options` out of the command's words."""
    from distill.training import LoraSettings

    lora, qlora = words.pop("lora"), words.pop("qlora")
    given = {name: value for word, name in _LORA.items() if (value := words.pop(word)) is not None}
    if not lora and not qlora:
        if given:
            raise UsageError("an option of LoRA is given, but not --lora", "add --lora")
        return None
    if "target_modules" in given:
        given["target_modules"] = tuple(name.strip() for name in given["target_modules"].split(",") if name.strip())
    return LoraSettings(quantize=qlora, **given)


def _show_plan(report: TrainReport, settings: Mapping[str, Setting]) -> None:
    """Print what a training would be, for people: settings with their origin, memory, disk."""
    for name, setting in settings.items():
        value = setting.value
        shown = value if isinstance(value, str) else ", ".join(value) if name == "data" else json.dumps(value)
        click.echo(f"{name:<28} {printable(shown):<40} {setting.origin}")
    need = report.estimate
    if need is None:
        return
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "process")
    of = ", ".join(f"{part} {_size(getattr(need, part))}" for part in parts if getattr(need, part))
    click.echo(f"\n{'parameters':<28} {need.trained_parameters:,} trained, of {need.parameters:,}")
    click.echo(f"{'memory':<28} about {_size(need.peak_memory)} a process at its peak: {of}")
    click.echo(f"{'disk':<28} up to {_size(need.peak_disk)}, {_size(need.checkpoint)} of it each checkpoint\n")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _show(report: TrainReport, dry_run: bool) -> None:
    verb = "would train" if dry_run else "trained"
    note(
        f"{verb} {report.trained_rows} of {report.rows} rows: {report.trained_tokens} of {report.tokens} tokens, "
        f"{report.steps} steps" + ("" if report.loss is None else f", mean loss {report.loss:.4f}")
    )
    if report.held_out_rows:
        where = "" if dry_run else f", in {RunPaths(Path(report.out)).held_out}"
        note(f"held out {report.held_out_rows} rows{where}")
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1])[:5]:
        note(f"skipped {count}: {reason}")
    if report.split_rows:
        note(f"{report.split_rows} rows were split by answer: the chat template shows earlier turns differently")
    if report.truncated:
        note(f"{report.truncated} examples were cut to the maximal length; they have no end-of-turn marker")
    if not dry_run:
        compare = f"; distill compare {report.out}" if report.held_out_rows else ""
        note(f"next: distill generate {report.out} 'your question'{compare}")


class Progress:
    """A bar on standard error, off where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take a log row of the trainer."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=int(row.get("max_steps", 0)) or None, unit="step", desc="training", disable=None)
        self._bar.n = int(row["step"])
        self._bar.set_postfix(loss=f"{row['loss']:.3f}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
