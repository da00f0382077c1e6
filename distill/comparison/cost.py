"""What the answers that a student was trained on have cost, as far as their metadata tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from distill.collection.budget import Price, find_price
from distill.errors import DistillError
from distill.runs.run import Run
from distill.transcripts.reader import skip_refused

_SERVERS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Teacher → the server it asks when no other is named; a transcript does not say which it was."""


@dataclass(slots=True)
class Cost:
    """Of one teacher's transcripts.

    Attributes:
        teacher: as transcripts name it.
        rows: its transcripts; `counted`: those that say their tokens.
        tokens_in, tokens_out: sent and answered.
        usd: at the published prices of the teacher's own server; None where there are none.
        server: whose prices they are.
    """

    teacher: str
    rows: int = 0
    counted: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = None
    server: str = ""


def collection_cost(run: Run) -> tuple[list[Cost], list[str]]:
    """Add up the tokens of a run's training data.

    Args:
        run: names the files.

    Returns:
        A cost a teacher, the most transcripts first; and why some of it, or all, is not known.
    """
    costs: dict[str, Cost] = {}
    unknown = []
    for entry in run.data:
        try:
            for transcript in run.reader().transcripts(entry.source(), skip_refused):
                _add(costs, transcript.metadata)
        except DistillError as error:
            unknown.append(error.message)
    return sorted(costs.values(), key=lambda cost: -cost.rows), unknown


def _add(costs: dict[str, Cost], metadata: Mapping[str, Any]) -> None:
    teacher = metadata.get("teacher")
    name = teacher if isinstance(teacher, str) and teacher else "no teacher named"
    cost = costs.setdefault(name, Cost(name))
    cost.rows += 1
    usage = metadata.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    sent, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(sent, int) or not isinstance(answered, int):
        return
    cost.counted += 1
    cost.tokens_in += sent
    cost.tokens_out += answered
    if cost.counted == 1:
        cost.server = _SERVERS.get(name.partition(":")[0], "")
    price = _price(cost.server, name.partition(":")[2])
    dollars = price and price.of(usage)
    if dollars is not None:
        cost.usd = (cost.usd or 0.0) + dollars


@cache
def _price(server: str, model: str) -> Price | None:
    return find_price(server, model)
