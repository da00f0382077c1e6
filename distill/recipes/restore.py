"""From the store of all answers ever given to the file that is trained on: the rows asked for, in the prompts' order.

The order in which answers came, and rows of other prompts, teachers or parameters, make no difference to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from distill.collection.output import whole_rows
from distill.collection.plan import Plan
from distill.collection.row_id import IdSet
from distill.files.atomic import whole_file


def gather(plan: Plan, prompts: Path, store: Path, target: Path) -> int:
    """Write the answers to a prompt file, row by row as it asks for them.

    Args:
        plan: what was asked of each prompt.
        prompts: the prompt file.
        store: rows of any origin; the first one with an id counts.
        target: the file to write, whole or not at all.

    Returns:
        How many rows were written: those that the store lacks are left out.
    """
    places = _places(store)
    count = 0
    with plan.open(prompts) as asked, open(store, "rb") as rows, whole_file(target) as file:
        for job in plan.jobs(asked, IdSet(), lambda kind: None):
            if job is not None and job.id in places:
                rows.seek(places[job.id])
                file.write(rows.readline().decode("utf-8"))
                count += 1
    return count


def _places(store: Path) -> dict[str, int]:
    """Where each row of a file starts, by its id."""
    starts = [0]
    with open(store, "rb") as file:
        for line in file:
            starts.append(starts[-1] + len(line))
    places: dict[str, int] = {}
    for source, row in whole_rows(store):  # another recipe may be adding to it
        places.setdefault(str(row.get("id")), starts[source.line - 1])
    return places


def store_of(out: Path, named: Path | None) -> Path:
    """The file that answers are added to."""
    store = named or out / "answers.jsonl"
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(store, os.O_CREAT | os.O_WRONLY, 0o644))
    return store
