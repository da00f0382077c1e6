"""`distill score`: a teacher's log probabilities of answers that are there already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distill import api
from distill.cli.options import GroupedCommand, given, json_option, settings_options
from distill.cli.terminal import note, print_json
from distill.collection.settings import ScoreSettings
from distill.pages.environment import counted
from distill.plugins import PluginManager
from distill.transcripts.settings import ReadSettings


@click.command("score", cls=GroupedCommand, short_help="Add a teacher's log probabilities to transcripts.")
@click.argument("data", nargs=-1, required=True, metavar="DATA…")
@click.option("--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The JSONL file to write.")
@settings_options(ScoreSettings)
@settings_options(ReadSettings)
@json_option
@click.pass_obj
def command(manager: PluginManager, /, data: tuple[str, ...], out: Path, as_json: bool, **words: Any) -> int:
    """Add a teacher's log probabilities to the answers of DATA, and write the rows to FILE.

    The teacher reads each answer in one forward pass; it writes nothing. A server must be able to do so: vLLM, or one
    that echoes prompts. Each row is saved as soon as it is scored and is never scored twice: run the same command again
    to resume. Train on the result with `--loss soft-labels`, or with
    `--loss chunks` where teacher and student have different tokenizers.

    Rows that cannot be scored are counted, with their reasons, and left out; the exit code is then 1.

    \b
        distill score chats.jsonl --teacher transformers:MODEL --logprobs 20 --out scored.jsonl
        distill score chats.jsonl --teacher openai:MODEL --base-url http://localhost:8000/v1 --out scored.jsonl
    """
    from distill.collection.progress import dollars

    summary = api.score(data, out=out, progress=not as_json, manager=manager, **given(words))
    if as_json:
        print_json(asdict(summary))
    else:
        cached = f", {summary.cached} already there" if summary.cached else ""
        paid = "" if summary.usd is None else f", {dollars(summary.usd)}"
        cost = f"{counted(summary.tokens, 'token')}, {summary.seconds:.1f} s{paid}"
        note(f"{summary.out}: {counted(summary.rows, 'row')} written{cached} ({cost})")
        for reason, count in summary.reasons.items():
            note(f"{count} not scored: {reason}")
        if summary.stopped:
            note(f"stopped: {summary.stopped}; the same command resumes")
    return 1 if summary.failed or summary.stopped else 0
