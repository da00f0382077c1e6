"""`distill convert`: conversations from one format to another."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from distill.cli.completion import names_of
from distill.cli.options import given, json_option, settings_options
from distill.cli.terminal import note, print_json
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.progress import Progress
from distill.settings import settings_from
from distill.transcripts.settings import ReadSettings

if TYPE_CHECKING:
    from distill.transcripts.convert import ConvertReport, Rows

_LOST = {
    "id": "ids",
    "metadata": "metadata (teacher, finish reason, usage, other columns)",
    "finish_reason": "the mark that an answer is cut off: it will look whole",
    "tools": "tool definitions",
    "messages": "messages: some were left out, joined or divided",
    "content": "text",
    "empty_content": "empty texts beside tool calls",
    "reasoning_content": "reasoning",
    "tool_calls": "tool calls: their ids, or the spelling of their arguments",
    "tool_call_id": "which call a tool's result belongs to",
    "name": "names of speakers",
    "refusal": "refusals",
    "weight": "weights: messages that did not count in the loss will count",
}


@click.command("convert", short_help="Convert conversations to another format.")
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@click.option(
    "--to",
    required=True,
    shell_complete=names_of("dialect"),
    metavar="NAME",
    help="The data format to write: canonical, openai, sharegpt, alpaca, prompt-completion, or a plugin's.",
)
@settings_options(ReadSettings)
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager, /, source: str, target: str, to: str, force: bool, as_json: bool, **words: Any
) -> int:
    """Convert the conversations of IN to another data format, and report what was lost.

    IN is a file (JSON lines, JSON, CSV, TSV or Parquet, also compressed) or hub:owner/name[:split]; OUT is JSON lines,
    written atomically. - is standard input or output. Every written row is read again: what the format could not hold
    is counted and named. Rows that it cannot hold at all are left out and named; the exit code is then 1.

    \b
        distill convert transcripts.jsonl chats.jsonl --to sharegpt
        distill convert alpaca.json - --to openai | head

    prompt-completion is TRL's conversational format, lists of messages; a conversation becomes one row per answer.
    alpaca keeps earlier messages in `history`, as LLaMA-Factory does.
    """
    from distill.transcripts.convert import convert_file

    if as_json and target == "-":
        raise UsageError("--json prints the report where the rows go", "give OUT a file name, or leave out --json")
    settings = settings_from(ReadSettings, given(words))
    report = convert_file(source, target, to, manager, settings, overwrite=force, watch=_watch)
    if as_json:
        print_json(asdict(report))
    else:
        _show(report)
    return 1 if report.left_out else 0


def _watch(rows: Rows) -> Rows:
    with Progress("converting", None, "row") as progress:
        for row in rows:
            yield row
            progress.advance()


def _show(report: ConvertReport) -> None:
    note(
        f"{report.converted} of {_rows(report.rows)} converted to {report.to}"
        + (f", as {report.written}: {report.split} were split by answer" if report.split else "")
    )
    for kind, finding in sorted(report.lost.items(), key=lambda item: -item[1].rows):
        note(f"lost in {_rows(finding.rows)} (first: {finding.example}): {_LOST.get(kind, kind)}")
    for reason, finding in sorted(report.reasons.items(), key=lambda item: -item[1].rows):
        note(f"left out {_rows(finding.rows)} (first: {finding.example}): {reason}")


def _rows(count: int) -> str:
    return f"{count} row" + ("" if count == 1 else "s")
