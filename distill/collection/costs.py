"""What collected answers cost, as far as their transcripts tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from distill.collection.budget import Price, find_price
from distill.plugins import PluginManager


@dataclass(slots=True)
class Cost:
    """What one teacher's transcripts cost.

    Attributes:
        teacher: as transcripts name it.
        rows: its transcripts.
        counted: those of them that tell their number of tokens.
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


class CostTable:
    """Adds up what teachers' answers cost, as far as transcripts tell.

    Args:
        manager: the plugins, whose teachers name their servers; a transcript does not tell which it was.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._costs: dict[str, Cost] = {}
        self._servers = {spec.name: spec.server or "" for spec in manager.teachers}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Count a transcript by its metadata."""
        teacher = metadata.get("teacher")
        name = teacher if isinstance(teacher, str) and teacher else "no teacher named"
        cost = self._costs.setdefault(name, Cost(name, server=self._servers.get(name.partition(":")[0], "")))
        cost.rows += 1
        usage = metadata.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        sent, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(sent, int) or not isinstance(answered, int):
            return
        cost.counted += 1
        cost.tokens_in += sent
        cost.tokens_out += answered
        price = _price(cost.server, name.partition(":")[2])
        dollars = price.of(usage) if price is not None else None
        if dollars is not None:
            cost.usd = (cost.usd or 0.0) + dollars

    def found(self) -> list[Cost]:
        """A cost per teacher, the one with the most transcripts first."""
        return sorted(self._costs.values(), key=lambda cost: -cost.rows)


@cache
def _price(server: str, model: str) -> Price | None:
    return find_price(server, model)
