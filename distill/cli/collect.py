"""`distill collect`: prompts × teacher → transcripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from distill.cli.collect_report import show_batch, show_estimate, show_summary
from distill.cli.terminal import print_json
from distill.options import parse_pairs
from distill.plugins import PluginManager
from distill.types import Params

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command("collect", short_help="Ask a teacher prompts; write transcripts.")
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
@click.option("--logprobs", type=click.IntRange(0), metavar="K", help="Keep each token's logprob, and its top K.")
@click.option("--rpm", type=_POSITIVE, help="Requests a minute at most.")
@click.option("--tpm", type=_POSITIVE, help="Tokens a minute at most, in and out.")
@click.option("--max-usd", type=_POSITIVE, help="Dollars this run may cost; with --max-tokens they cannot be overrun.")
@click.option("--price", metavar="IN/OUT", help="Dollars a million tokens; default: the published price.")
@click.option("--timeout", type=_POSITIVE, help="Seconds for one whole request.")
@click.option(
    "--retries", type=click.IntRange(0), default=5, show_default=True, help="How often a failed request is sent again."
)
@click.option("--limit", type=click.IntRange(1), help="Take only the first so many prompts.")
@click.option("--append", is_flag=True, help="Add to a file with rows of another teacher or other parameters.")
@click.option("--batch", metavar="FILE", help="Ask nothing: write a request file for OpenAI's batch API.")
@click.option("--batch-answers", multiple=True, metavar="FILE", help="Take the answers from a batch's output file.")
@click.option("--dry-run", is_flag=True, help="Ask nothing: say how many requests, tokens and dollars it would be.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
@click.pass_obj
def command(
    manager: PluginManager,
    prompts: str,
    teacher: str,
    out: str,
    base_url: str | None,
    pairs: tuple[str, ...],
    timeout: float | None,
    logprobs: int | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    batch: str | None,
    batch_answers: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    append: bool,
    **settings: Any,
) -> int:
    """Ask a teacher PROMPTS, and write its answers to a file of transcripts.

    PROMPTS is a .jsonl file (each row with `prompt`, `messages` or `turns`), a .txt file with one prompt a line, or -
    for standard input. An answer is on disk as soon as it is there, and is never bought twice: run the same command
    again to go on where it was stopped, to retry what failed, or to add prompts or samples.

    Rows that fail are written to FILE.failed.jsonl with their errors; the exit code is then 1.

    At half the price through OpenAI's batch API, in two steps: the same command with `--batch requests.jsonl` writes
    what is to be uploaded, and with `--batch-answers output.jsonl` reads what came back.
    """
    from distill.collection import collect, estimate, make_teacher, read_batch, write_batch

    options = {"base_url": base_url, "timeout": timeout, "logprobs": logprobs}
    asked = {
        "manager": manager,
        "teacher": make_teacher(manager, teacher, parse_pairs(pairs, "-T"), **options),
        "params": Params(max_tokens=max_tokens, temperature=temperature, seed=seed),
        "out": out,
        "append": append,
        **{key: settings.pop(key) for key in ("system", "samples", "limit")},
    }
    if bool(batch) + bool(batch_answers) + dry_run > 1:
        raise click.UsageError("--batch, --batch-answers and --dry-run are three commands: give one of them")
    if dry_run:
        show_estimate(estimate(prompts, **asked, price=settings["price"]), as_json)
        return 0
    if batch:
        show_batch(write_batch(prompts, requests=batch, **asked), as_json)
        return 0
    if batch_answers:
        summary = read_batch(prompts, answers=batch_answers, **asked, price=settings["price"], progress=True)
    else:
        summary = collect(prompts, **asked, **settings, progress=True)
    if as_json:
        print_json(asdict(summary))
    else:
        show_summary(summary, part=asked["limit"] is not None)
    return 1 if summary.failed or summary.left else 0
