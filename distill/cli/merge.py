"""`distill merge`: several files of transcripts into one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distill.cli.options import json_option
from distill.cli.terminal import note, print_json
from distill.pages.environment import counted


@click.command("merge", short_help="Merge files of transcripts, by id.")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="IN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--prompts", metavar="FILE", help="Order the rows as this prompt file does.")
@json_option
def command(out: Path, inputs: tuple[Path, ...], prompts: str | None, as_json: bool) -> int:
    """Merge the files IN of transcripts, such as the shards of one collection, into OUT.

    The first row with an id wins. OUT may exist: its rows come first, so merging again changes nothing. The inputs'
    failed rows (IN.failed.jsonl) are merged too, except those that succeeded in another file. Two rows with one id
    and different conversations are a conflict: it is named, and the exit code is 1.

    Merging is a convenience: `train`, `check` and `show` take several files.

    \b
        distill merge transcripts.jsonl transcripts.shard-*.jsonl --prompts prompts.jsonl
    """
    from distill.collection.merge import merge

    report = merge(out, inputs, prompts=prompts)
    if as_json:
        print_json(asdict(report))
    else:
        note(
            f"{counted(report.rows, 'row')} in {report.out}: {report.added} added, "
            f"{counted(report.duplicates, 'duplicate')} left out"
        )
        if report.unordered:
            note(f"{counted(report.unordered, 'row')} of no prompt in {prompts}, at the end of the file")
        if report.failed:
            note(f"{counted(report.failed, 'failed row')} in {report.out}.failed.jsonl")
        for conflict in report.named:
            note(f"conflict: {conflict.id}: kept {conflict.kept}, left out {conflict.dropped}")
        if report.conflicts > len(report.named):
            note(f"… and {counted(report.conflicts - len(report.named), 'more conflict')}")
    return 1 if report.conflicts else 0
