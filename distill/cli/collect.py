"""`distill collect`: prompts × teacher → transcripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from distill.cli.collect_report import show_batch, show_estimate, show_summary
from distill.cli.options import GroupedCommand, given, settings_options
from distill.cli.terminal import print_json
from distill.collection.settings import CollectSettings
from distill.plugins import PluginManager
from distill.settings import settings_from


@click.command("collect", cls=GroupedCommand, short_help="Ask a teacher prompts; write transcripts.")
@click.argument("prompts", type=click.Path())
@click.option("--out", required=True, metavar="FILE", help="The JSONL file of transcripts; rows are added to it.")
@settings_options(CollectSettings)
@click.option(
    "--batch", metavar="FILE", help="Send nothing: write a request file for a batch (OpenAI's, Anthropic's, vLLM's)."
)
@click.option("--batch-answers", multiple=True, metavar="FILE", help="Take the answers from a batch's output file.")
@click.option("--dry-run", is_flag=True, help="Send nothing: estimate requests, tokens and dollars.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    prompts: str,
    out: str,
    batch: str | None,
    batch_answers: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **words: Any,
) -> int:
    """Ask a teacher PROMPTS, and write its answers to a file of transcripts.

    PROMPTS is a .jsonl file (each row with `prompt`, `messages` or `turns`), a .txt file with one prompt per line, or
    - for standard input. Each answer is saved as soon as it arrives and is never paid for twice: run the same command
    again to resume, to retry what failed, or to add prompts or samples.

    Rows that fail are written to FILE.failed.jsonl with their errors; the exit code is then 1.

    OpenAI's half-price batch API takes two steps: the same command with `--batch requests.jsonl` writes the file to
    upload, and with `--batch-answers output.jsonl` it reads the results.
    """
    from distill.collection import collect, estimate, read_batch, write_batch

    if bool(batch) + bool(batch_answers) + dry_run > 1:
        raise click.UsageError("--batch, --batch-answers and --dry-run exclude each other: give one of them")
    settings = settings_from(CollectSettings, given(words))
    if dry_run:
        show_estimate(estimate(prompts, out, settings, manager), as_json)
        return 0
    if batch:
        show_batch(write_batch(prompts, out, batch, settings, manager), as_json)
        return 0
    if batch_answers:
        summary = read_batch(prompts, out, batch_answers, settings, manager, progress=True)
    else:
        summary = collect(prompts, out, settings, manager, progress=True)
    if as_json:
        print_json(asdict(summary))
    else:
        show_summary(summary, part=settings.limit is not None)
    return 1 if summary.failed or summary.left else 0
