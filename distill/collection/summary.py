"""What a collection did, as the command, the library and a notebook show it."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import Counter

    from distill.collection.budget import Meter
    from distill.collection.output import Output


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What a collection did. Every row asked for is in exactly one of rows, cached, failed, duplicates, left.

    Attributes:
        out: the file of transcripts.
        rows: transcripts written by this run.
        cached: rows that were in the file already.
        failed: rows without a transcript; they are in `FILE.failed.jsonl` with their errors.
        duplicates: rows that ask for what an earlier row of the prompt file asks for.
        cut: written transcripts whose last answer ran into the token limit.
        requests: requests sent, retries included.
        usage: token counts of all answers, added up.
        seconds: how long it took.
        reasons: why rows failed, and how many for each reason.
        usd: dollars this run cost; None where no price is known.
        left: rows that were not asked for, because the budget did not reach.
        stopped: why the run stopped before its end; None if it did not.
        servers: per server how many requests it answered and failed, where the teacher has several.
        others: rows in the file that this run did not ask for: of other prompts, or of another `system`.
    """

    out: str
    rows: int
    cached: int
    failed: int
    duplicates: int
    cut: int
    requests: int
    usage: Mapping[str, Any]
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)
    usd: float | None = None
    left: int = 0
    stopped: str | None = None
    others: int = 0
    servers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """A table of the counts that are not zero, and the reasons for failed rows."""
        cells = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        cells |= {f"failed: {reason}": count for reason, count in self.reasons.items()}
        hidden = ("usage", "reasons", "servers")
        shown = {name: value for name, value in cells.items() if name not in hidden and value not in (None, 0)}
        for name in ("prompt_tokens", "completion_tokens"):
            if isinstance(self.usage.get(name), int):
                shown[name.replace("_", " ")] = self.usage[name]
        lines = [
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in shown.items()
        ]
        return f"<table>{''.join(lines)}</table>"


def summary_of(
    output: Output,
    meter: Meter,
    skipped: Counter[str],
    total: int,
    seconds: float,
    *,
    requests: int = 0,
    stopped: str | None = None,
    servers: Mapping[str, Mapping[str, int]] | None = None,
) -> CollectSummary:
    """Make the summary of a run.

    Args:
        output: what was written.
        meter: what was paid.
        skipped: `cached` and `duplicates`.
        total: rows asked for.
        seconds: how long it took.
        requests: requests sent.
        stopped: why the run stopped before its end.
        servers: counts per server.
    """
    counts = output.counts
    return CollectSummary(
        out=str(output.run.out),
        rows=counts.rows,
        cached=skipped["cached"],
        failed=counts.failed,
        duplicates=skipped["duplicates"],
        cut=counts.cut,
        requests=requests,
        usage=counts.usage,
        seconds=round(seconds, 3),
        reasons=dict(counts.reasons.most_common()),
        usd=None if meter.usd is None else round(meter.usd, 6),
        left=total - counts.rows - counts.failed - skipped.total(),
        stopped=stopped,
        others=len(output.done) - skipped["cached"],
        servers=servers or {},
    )
