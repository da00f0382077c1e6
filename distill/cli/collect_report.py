"""What `distill collect` prints at its end, or before its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from distill.cli.terminal import note, print_json, printable
from distill.pages.environment import counted

if TYPE_CHECKING:
    from distill.collection import BatchSummary, CollectSummary, Estimate

_SHOWN_REASONS = 5


def show_summary(summary: CollectSummary, part: bool) -> None:
    """Print what a collection did; `part`: only a part of the prompts was taken."""
    parts = [f"{summary.rows} written"]
    parts += [f"{summary.cached} already there"] if summary.cached else []
    parts += [counted(summary.duplicates, "duplicate")] if summary.duplicates else []
    parts += [f"{summary.failed} failed"] if summary.failed else []
    parts += [f"{summary.left} left"] if summary.left else []
    spent = [
        counted(summary.requests, "request"),
        *_tokens(summary.usage),
        *_dollars(summary.usd),
        f"{summary.seconds:.1f} s",
    ]
    note(f"{summary.out}: {', '.join(parts)} ({', '.join(spent)})")
    for server, counts in summary.servers.items():
        note(f"  {server}: {counts['answered']} answered, {counts['failed']} failed")
    if summary.cut:
        note(f"{counted(summary.cut, 'answer')} cut short by the token limit (finish_reason is `length`)")
    if summary.others and not part:
        note(f"{summary.out} also has {counted(summary.others, 'row')} of other prompts (or another --system)")
    if summary.failed:
        for reason, count in list(summary.reasons.items())[:_SHOWN_REASONS]:
            note(f"  {count} × {reason}")
        note(f"The failed rows are in {summary.out}.failed.jsonl; the same command tries them again.")
    if summary.stopped:
        note(f"Stopped: {summary.stopped}. The same command resumes.")


def show_estimate(estimate: Estimate, as_json: bool) -> None:
    """Print what a collection would cost."""
    if as_json:
        print_json(asdict(estimate))
        return
    there = f" ({counted(estimate.cached, 'row')} already there)" if estimate.cached else ""
    lines = [
        f"{counted(estimate.requests, 'request')} for {counted(estimate.rows, 'row')}{there}",
        f"about {estimate.tokens_in:,} tokens in, about {estimate.tokens_out:,} out ({estimate.basis})",
    ]
    if estimate.usd is None:
        lines.append("dollars: no price is known; give --price IN/OUT")
    else:
        lines.append(f"about ${estimate.usd:.4f}" + _at_most(estimate.usd_at_most))
    click.echo("\n".join(printable(line) for line in lines))


def show_batch(summary: BatchSummary, as_json: bool) -> None:
    """Print what was written for a batch, and what to do with it."""
    if as_json:
        print_json(asdict(summary))
        return
    there = f" ({counted(summary.cached, 'row')} already there)" if summary.cached else ""
    if not summary.files:
        note(f"Nothing is left to ask{there}.")
        return
    note(f"{', '.join(summary.files)}: {summary.requests} requests{there}")
    note("Have it answered as a batch (docs/collect.md); then run the same command with --batch-answers OUTPUT_FILE.")


def _at_most(usd: float | None) -> str:
    return "" if usd is None else f", at most ${usd:.4f} if nothing is asked twice"


def _tokens(usage: Mapping[str, Any]) -> list[str]:
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    return [f"{counts[0]} tokens in and {counts[1]} out"] if all(isinstance(count, int) for count in counts) else []


def _dollars(usd: float | None) -> list[str]:
    return [] if usd is None else [f"${usd:.4f}"]
