"""`distill view`: look at runs and files of rows in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.cli.completion import models
from distill.cli.options import GroupedCommand, given, settings_options
from distill.cli.terminal import note
from distill.dataset.settings import DataSettings
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.settings import settings_from


@click.command("view", cls=GroupedCommand, short_help="Look at runs, transcripts and comparisons in a browser.")
@click.argument("path", default=".", metavar="[RUN|FILE|FOLDER]", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port.  [default: any that is free]")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in your browser.")
@click.option(
    "--student",
    metavar="MODEL",
    shell_complete=models,
    help="Show each row as this student's tokens, as `distill show` does.  [default: in a run, its own student's]",
)
@settings_options(DataSettings, leave_out=("student", "max_length", "allow"))
@click.pass_obj
def command(
    manager: PluginManager, /, path: Path, port: int, open_browser: bool, student: str | None, **words: Any
) -> None:
    """Serve pages about a run, a JSONL file or everything below a folder, on this machine only; Ctrl-C ends it.

    Rows can be searched, filtered (cut answers, failed rows, a number such as `logprob < -1`) and sorted; a file of a
    million rows is indexed, not loaded. The page of a run that is training follows its loss. In a comparison, answers
    that differ from the teacher's are marked. Keys: ← → or k j for previous and next, / to search, Esc to go back.

    Nothing is ever written, and nothing outside the path is read but the student's tokenizer. The address holds a
    secret token; without it the server refuses.

    \b
        distill view run
        distill view transcripts.jsonl --open
        distill view transcripts.jsonl --student smollm2
    """
    from distill.view.server import serve
    from distill.view.tokens import Tokenizers

    words = given(words)
    if words and student is None:
        raise UsageError(f"--{next(iter(words)).replace('_', '-')} goes with --student", "add --student MODEL")
    named = None if student is None else settings_from(DataSettings, {**words, "student": student})

    def ready(address: str) -> None:
        click.echo(address)
        note("Ctrl-C ends it")
        if open_browser:
            click.launch(address)

    serve(path, port, ready, Tokenizers(manager, named))
