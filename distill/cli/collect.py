"""`distill collect`: prompts × teacher → transcripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from distill.cli.terminal import note, print_json
from distill.plugins import PluginManager
from distill.specs import parse_pairs
from distill.types import Params

if TYPE_CHECKING:
    from distill.collect import CollectSummary

_SHOWN_REASONS = 5


@click.command("collect")
@click.argument("prompts")
@click.option("--teacher", required=True, metavar="NAME[:MODEL]", help="Who answers, e.g. openai:gpt-5-mini.")
@click.option("--out", required=True, metavar="FILE", help="The JSONL file of transcripts; it is added to.")
@click.option("--base-url", metavar="URL", help="The server, e.g. http://localhost:8000/v1.")
@click.option("-T", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the teacher; may be repeated.")
@click.option("--system", metavar="TEXT", help="A system message for the prompts without one.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to each prompt.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=16, show_default=True, help="Requests in flight at a time."
)
@click.option("--max-tokens", type=click.IntRange(1), help="The longest answer, in tokens; default: the teacher's.")
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy; default: the teacher's.")
@click.option("--seed", type=int, help="The sampling seed; sample N of a prompt is asked with seed + N.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds for one whole request.")
@click.option(
    "--retries", type=click.IntRange(0), default=5, show_default=True, help="How often a failed request is sent again."
)
@click.option("--limit", type=click.IntRange(1), help="Take only the first so many prompts.")
@click.option("--append", is_flag=True, help="Add to a file with rows of another teacher or other parameters.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
@click.pass_obj
def command(
    manager: PluginManager,
    prompts: str,
    teacher: str,
    out: str,
    base_url: str | None,
    pairs: tuple[str, ...],
    system: str | None,
    samples: int,
    concurrency: int,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    timeout: float | None,
    retries: int,
    limit: int | None,
    append: bool,
    as_json: bool,
) -> int:
    """Ask a teacher PROMPTS, and write its answers to a file of transcripts.

    PROMPTS is a .jsonl file (each row with `prompt`, `messages` or `turns`), a .txt file with one prompt a line, or -
    for standard input. An answer is on disk as soon as it is there, and is never bought twice: run the same command
    again to go on where it was stopped, to retry what failed, or to add prompts or samples.

    Rows that fail are written to FILE.failed.jsonl with their errors; the exit code is then 1.
    """
    from distill.collect import collect, make_teacher

    summary = collect(
        prompts,
        make_teacher(manager, teacher, parse_pairs(pairs, "-T"), base_url=base_url, timeout=timeout),
        out,
        manager=manager,
        params=Params(max_tokens=max_tokens, temperature=temperature, seed=seed),
        system=system,
        samples=samples,
        concurrency=concurrency,
        retries=retries,
        limit=limit,
        append=append,
        progress=True,
    )
    if as_json:
        print_json(asdict(summary))
    else:
        _show(summary)
    return 1 if summary.failed else 0


def _show(summary: CollectSummary) -> None:
    parts = [f"{summary.rows} written"]
    parts += [f"{summary.cached} already there"] if summary.cached else []
    parts += [f"{summary.duplicates} duplicates"] if summary.duplicates else []
    parts += [f"{summary.failed} failed"] if summary.failed else []
    note(f"{summary.out}: {', '.join(parts)} ({summary.requests} requests{_tokens(summary)}, {summary.seconds:.1f} s)")
    if summary.cut:
        note(f"{summary.cut} answers were cut short by the token limit (finish_reason is `length`)")
    if summary.failed:
        for reason, count in list(summary.reasons.items())[:_SHOWN_REASONS]:
            note(f"  {count} × {reason}")
        note(f"The failed rows are in {summary.out}.failed.jsonl; the same command tries them again.")


def _tokens(summary: CollectSummary) -> str:
    usage = summary.usage
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(count, int) for count in counts):
        return ""
    return f", {counts[0]} tokens in and {counts[1]} out"
