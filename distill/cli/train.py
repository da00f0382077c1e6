"""`distill train`: fine-tune a student on transcripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from distill.cli.options import formatter_options, json_option, labeler_options, student_option
from distill.cli.terminal import note, print_json
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.specs import parse_pairs


@click.command("train")
@click.argument("data", nargs=-1, required=True, metavar="DATA…", type=click.Path(path_type=Path))
@student_option
@click.option("--out", required=True, metavar="RUN", type=click.Path(path_type=Path), help="The run folder to make.")
@formatter_options
@labeler_options
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
@click.option("--seed", type=int, default=0, show_default=True, help="For shuffling and dropout.")
@click.option("--dry-run", is_flag=True, help="Count rows, tokens and steps; load no weights, write nothing.")
@json_option
@click.pass_context
def command(context: click.Context, data: tuple[Path, ...], dry_run: bool, as_json: bool, **words: Any) -> None:
    """Fine-tune a student on the transcripts in DATA, and write the run folder RUN.

    RUN/model is the student: load it with `distill generate RUN` or with plain transformers. Every row is trained, or
    stands in RUN/skipped.jsonl with its reason.

    \b
        distill train answers.jsonl --student smollm2 --out run
        distill train answers.jsonl --formatter special-tokens --labeler trl --out run
    """
    from distill.train import TrainSettings, train

    manager: PluginManager = context.obj
    for kind, flag in (("formatter", "-F"), ("labeler", "-L"), ("trainer", "-T")):
        words[f"{kind}_options"] = parse_pairs(words[f"{kind}_options"], flag)
    settings = TrainSettings(data=data, **words)
    sources = {one.name: context.get_parameter_source(one.name) for one in fields(settings)}
    if settings.batch_tokens is not None and sources["per_device_train_batch_size"] is ParameterSource.COMMANDLINE:
        raise UsageError("--batch-size and --batch-tokens exclude each other", "a batch is counted in one or the other")
    origins = {name: source.name.lower().replace("_", " ") for name, source in sources.items() if source}
    progress = Progress()
    try:
        report = train(settings, manager, dry_run=dry_run, on_log=progress, note=note, origins=origins)
    finally:
        progress.close()
    if as_json:
        print_json(asdict(report))
        return
    verb = "would train" if dry_run else "trained"
    note(
        f"{verb} {report.trained_rows} of {report.rows} rows: {report.trained_tokens} of {report.tokens} tokens, "
        f"{report.steps} steps" + ("" if report.loss is None else f", mean loss {report.loss:.4f}")
    )
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1])[:5]:
        note(f"skipped {count}: {reason}")
    if report.split_rows:
        note(f"{report.split_rows} rows were split by answer: the chat template shows earlier turns differently")
    if report.truncated:
        note(f"{report.truncated} examples were cut to the maximal length; they have no end-of-turn marker")
    if not dry_run:
        note(f"next: distill generate {settings.out} 'your question'")


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
