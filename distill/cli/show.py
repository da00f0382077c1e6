"""`distill show`: see which tokens count before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill.cli.options import formatter_options, json_option, labeler_options, student_option, turns_option
from distill.cli.terminal import print_json, printable
from distill.plugins import PluginManager
from distill.specs import parse_pairs
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from distill.show import ShownRow
    from distill.turns import Turns


@click.command("show")
@click.argument("data", type=click.Path(path_type=Path))
@student_option
@formatter_options
@labeler_options
@turns_option
@click.option("-n", "count", type=click.IntRange(min=1), default=3, show_default=True, help="How many rows.")
@click.option("--all", "every", is_flag=True, help="All rows.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    data: Path,
    student: str,
    formatter: str,
    formatter_options: tuple[str, ...],
    labeler: str,
    labeler_options: tuple[str, ...],
    turns: Turns,
    count: int,
    every: bool,
    as_json: bool,
) -> None:
    """Show the rows of DATA token by token, exactly as the trainer's collator would get them.

    Trained tokens are green (in ⟦brackets⟧ where there are no colours), the others dim;
    special tokens are in reverse video. Only the student's tokenizer is
    loaded, not its weights.

    --json prints one object a row: {"row", "id", "token_ids", "tokens", "labels", "trained"}.
    """
    from distill.formats import make_formatter, make_labeler
    from distill.models import load_tokenizer, resolve_model
    from distill.show import show
    from distill.student import prepare_tokenizer
    from distill.transcripts import read_transcripts
    from distill.turns import choose_turns

    made = make_formatter(formatter, parse_pairs(formatter_options, "-F"), manager)
    encoder = prepare_tokenizer(load_tokenizer(resolve_model(student, manager)), made, formatter)
    labels = make_labeler(labeler, parse_pairs(labeler_options, "-L"), manager, encoder)
    rows = choose_turns(read_transcripts(data), turns)
    for row in show(rows, encoder, labels, labeler, None if every else count):
        if as_json:
            print_json(row.as_dict())
        else:
            _show(row)


def _show(row: ShownRow) -> None:
    head = f"row {row.row}  {printable(row.id)}"
    if row.reason:
        click.secho(f"{head}  skipped: {printable(row.reason)}\n", fg="yellow")
        return
    click.secho(f"{head}  {row.trained} of {len(row.token_ids)} tokens trained", bold=True)
    colours = sys.stdout.isatty()
    before = False
    for token, label, special in zip(row.tokens, row.labels, row.special, strict=True):
        trained = label != IGNORE_INDEX
        if trained != before and not colours:  # in a file or a pipe, brackets stand for green
            click.echo("⟦" if trained else "⟧", nl=False)
        before = trained
        text = printable(token, newlines=True)
        click.secho(text, fg="green" if trained else None, dim=not trained, reverse=special, nl=False)
    click.echo("⟧\n" if before and not colours else "\n")
