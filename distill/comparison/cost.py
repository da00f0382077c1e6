"""What the answers that a student was trained on have cost, as far as their metadata tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distill.collection.budget import Price, find_price
from distill.errors import DistillError
from distill.plugins import PluginManager, make_plugin_manager
from distill.runs.run import Run
from distill.transcripts.dialects import read_transcripts


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


def collection_cost(run: Run, manager: PluginManager | None = None) -> tuple[list[Cost], list[str]]:
    """Add up the tokens of a run's training data.

    Args:
        run: names the files.
        manager: the plugins, whose teachers name their servers (a transcript does not say which it was); default:
            those that are installed.

    Returns:
        A cost a teacher, the most transcripts first; and why some of it, or all, is not known.
    """
    costs: dict[str, Cost] = {}
    servers = {spec.name: spec.server or "" for spec in (manager or make_plugin_manager()).teachers}
    unknown = []
    for entry in run.data:
        if not Path(entry.file).is_file():
            unknown.append(f"{entry.file} is gone.")
            continue
        try:
            for transcript in read_transcripts(entry.file, run.data_format):
                _add(costs, transcript.metadata, servers)
        except DistillError as error:
            unknown.append(error.message)
    return sorted(costs.values(), key=lambda cost: -cost.rows), unknown


def _add(costs: dict[str, Cost], metadata: Mapping[str, Any], servers: Mapping[str, str]) -> None:
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
        cost.server = servers.get(name.partition(":")[0], "")
    price = _price(cost.server, name.partition(":")[2])
    dollars = None if price is None else price.of(usage)
    if dollars is not None:
        cost.usd = (cost.usd or 0.0) + dollars


@cache
def _price(server: str, model: str) -> Price | None:
    return find_price(server, model)
