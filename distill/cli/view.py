"""`distill view`: look at runs and files of rows in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from distill.cli.terminal import note


@click.command("view", short_help="Look at runs, transcripts and comparisons in a browser.")
@click.argument("path", default=".", metavar="[RUN|FILE|FOLDER]", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port.  [default: any that is free]")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in your browser.")
def command(path: Path, port: int, open_browser: bool) -> None:
    """Serve pages about a run, a JSONL file or everything below a folder, on this machine only; Ctrl-C ends it.

    Rows can be searched, filtered (cut answers, failed rows) and sorted; a file of a million rows is indexed, not
    loaded. The page of a run that is training follows its loss. In a comparison, answers that differ from the teacher's
    are marked. Keys: ← → or k j for previous and next, / to search, Esc to go back.

    Nothing is ever written, and nothing outside the path is read. The address holds a secret token; without it the
    server refuses.

    \b
        distill view run
        distill view transcripts.jsonl --open
    """
    from distill.view.server import serve

    def ready(address: str) -> None:
        click.echo(address)
        note("Ctrl-C ends it")
        if open_browser:
            click.launch(address)

    serve(path, port, ready)
