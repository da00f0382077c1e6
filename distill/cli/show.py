"""`distill show`: see which tokens count before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli.options import GroupedCommand, given, json_option, settings_options
from distill.cli.terminal import note, print_json, printable, shows_colours
from distill.dataset.settings import DataSettings
from distill.errors import DataError, UsageError
from distill.plugins import PluginManager
from distill.settings import settings_from
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from distill.dataset.preview import ShownRow


_SHOWN = 3
_SHOWN_ON_PAGE = 50


@click.command("show", cls=GroupedCommand, short_help="Show the tokens and labels of each row.")
@click.argument("data", type=click.Path(path_type=Path))
@settings_options(DataSettings, leave_out=("max_length", "allow"))
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    help=f"Number of rows.  [default: {_SHOWN}; {_SHOWN_ON_PAGE} with --html]",
)
@click.option("--all", "every", is_flag=True, help="Show all rows.")
@click.option(
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a web page: tokens in colour, with counts and lengths over all rows.",
)
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    data: Path,
    count: int | None,
    every: bool,
    page: Path | None,
    as_json: bool,
    **words: Any,
) -> None:
    """Show the rows of DATA token by token, exactly as the trainer's collator gets them.

    Trained tokens are green (in ⟦brackets⟧ where there are no colours), the others dim; special tokens are in reverse
    video. Only the student's tokenizer is loaded, not its weights.

    DATA is a file (JSON lines, JSON, CSV, TSV or Parquet, also compressed), a data set of the hub as
    hub:owner/name[:split], or - for standard input.

    --html makes one file that needs no network; search it, and point at a token for its id, label and role.

    --json prints one object per row: {"row", "id", "token_ids", "tokens", "labels", "trained"}.
    """
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.preview import show_data
    from distill.dataset.preview_page import write_data_page

    if page and as_json:
        raise UsageError("--html and --json cannot be combined", "choose one")
    settings = settings_from(DataSettings, given(words))
    pipeline = make_pipeline(settings, manager)
    number = None if every else count or (_SHOWN_ON_PAGE if page else _SHOWN)
    if page:
        note(write_data_page(data, pipeline, settings, page, number))
        return
    rows = show_data(data, pipeline, number)
    row = None
    for row in rows:
        if as_json:
            print_json(row.as_dict())
        else:
            _show(row)
    if row is None:
        raise DataError(f"{data} is empty", "give a file of transcripts; `distill collect` makes one")


def _show(row: ShownRow) -> None:
    head = f"row {row.row}  {printable(row.id)}"
    if row.reason:
        click.secho(f"{head}  skipped: {printable(row.reason)}\n", fg="yellow")
        return
    click.secho(f"{head}  {row.trained} of {len(row.token_ids)} tokens trained", bold=True)
    colours = shows_colours()
    before = False
    for token, label, special in zip(row.tokens, row.labels, row.special, strict=True):
        trained = label != IGNORE_INDEX
        if trained != before and not colours:  # in a file or a pipe, brackets replace the colour
            click.echo("⟦" if trained else "⟧", nl=False)
        before = trained
        text = printable(token, newlines=True)
        click.secho(text, fg="green" if trained else None, dim=not trained, reverse=special, nl=False)
    click.echo("⟧\n" if before and not colours else "\n")
