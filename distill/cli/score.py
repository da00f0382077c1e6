"""`distill score`: a teacher's log probabilities of answers that are there already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distill.cli.options import given, json_option, settings_options
from distill.cli.terminal import note, print_json
from distill.options import parse_pairs
from distill.plugins import PluginManager
from distill.settings import settings_from
from distill.transcripts.settings import ReadSettings


@click.command("score", short_help="Add a teacher's log probabilities to transcripts.")
@click.argument("data", nargs=-1, required=True, metavar="DATA…")
@click.option("--teacher", required=True, metavar="NAME[:MODEL]", help="Who scores: a local model, transformers:MODEL.")
@click.option("--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The JSONL file to write.")
@click.option(
    "--logprobs", type=click.IntRange(0), default=20, show_default=True, metavar="K", help="Likeliest tokens per place."
)
@click.option("-T", "options", metavar="KEY=VALUE", multiple=True, help="An option of the teacher; may be repeated.")
@settings_options(ReadSettings)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Score only the first N rows.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    data: tuple[str, ...],
    teacher: str,
    out: Path,
    logprobs: int,
    options: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    **words: Any,
) -> int:
    """Add a teacher's log probabilities to the answers of DATA, and write the rows to FILE.

    The teacher reads each answer in one forward pass; it writes nothing. Each row is saved as soon as it is scored and
    is never scored twice: run the same command again to resume. Train on the result with `--loss soft-labels`, or with
    `--loss chunks` where teacher and student have different tokenizers.

    Rows that cannot be scored are counted, with their reasons, and left out; the exit code is then 1.

    \b
        distill score chats.jsonl --teacher transformers:MODEL --logprobs 20 --out scored.jsonl
    """
    from distill.collection.score import score

    summary = score(
        data,
        teacher,
        out,
        logprobs=logprobs,
        options=parse_pairs(options, "-T"),
        limit=limit,
        reader=settings_from(ReadSettings, given(words)).reader(manager),
        manager=manager,
        progress=not as_json,
    )
    if as_json:
        print_json(asdict(summary))
    else:
        cached = f", {summary.cached} were there already" if summary.cached else ""
        note(f"{summary.out}: {summary.rows} rows written{cached} ({summary.tokens} tokens, {summary.seconds:.1f} s)")
        for reason, count in summary.reasons.items():
            note(f"{count} not scored: {reason}")
    return 1 if summary.failed else 0
