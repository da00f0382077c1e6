"""What there is to look at: runs, files of rows, comparisons. Pages name them by number, never by a path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.errors import DistillError, UsageError
from distill.runs.layout import RunPaths, is_run
from distill.runs.run import Run, open_run
from distill.view.rows import RowFile

Kind = Literal["run", "rows", "comparison"]

_DEPTH = 4
_MOST = 2000
_HIDDEN = ("model", "adapter", "checkpoints")


@dataclass(frozen=True, slots=True)
class Item:
    """Something to look at.

    Attributes:
        number: its place in the library.
        kind: what it is.
        path: where it is.
        name: its path below the folder that is looked at.
    """

    number: int
    kind: Kind
    path: Path
    name: str


class Library:
    """Everything below a path that can be looked at; nothing else is ever read.

    Args:
        root: a run folder, a file of rows, a comparison's JSON, or a folder of them.

    Raises:
        UsageError: there is nothing to look at.
    """

    def __init__(self, root: Path):
        if not root.exists():
            raise UsageError(f"{root} does not exist", "give a run folder, a file of rows, or a folder of them")
        self.root = root.resolve()
        self.items: list[Item] = []
        self._files: dict[int, RowFile] = {}
        self.refresh()
        if not self.items:
            raise UsageError(f"{root}: nothing to look at", "give a run folder, a .jsonl file, or a folder of them")

    def refresh(self) -> None:
        """Look for what was added; numbers stay what they are."""
        known = {item.path for item in self.items}
        for kind, path in self._found():
            if path not in known and len(self.items) < _MOST:
                name = path.name if path == self.root else str(path.relative_to(self.root))
                self.items.append(Item(len(self.items), kind, path, name or path.name))

    def _found(self) -> list[tuple[Kind, Path]]:
        if self.root.is_file():
            return [("comparison" if self.root.suffix == ".json" else "rows", self.root)]
        found: list[tuple[Kind, Path]] = []
        folders = [(self.root, 0)]
        while folders:
            folder, depth = folders.pop(0)
            if is_run(folder):
                found.append(("run", folder))
            for path in sorted(folder.iterdir()):
                if path.name.startswith(".") or path.is_symlink():
                    continue
                if path.is_dir():
                    hidden = is_run(folder) and path.name in _HIDDEN
                    if depth < _DEPTH and not hidden:
                        folders.append((path, depth + 1))
                elif path.suffix == ".jsonl":
                    found.append(("rows", path))
                elif path.name == RunPaths(folder).comparison.name:
                    found.append(("comparison", path))
        return found

    def item(self, number: int, kind: Kind) -> Item | None:
        """An item by its number; None where there is no such thing of that kind."""
        if not 0 <= number < len(self.items) or self.items[number].kind != kind:
            return None
        return self.items[number]

    def rows(self, item: Item) -> RowFile:
        """The rows of a file, indexed as far as it is written now."""
        file = self._files.setdefault(item.number, RowFile(item.path))
        file.refresh()
        return file

    def run(self, item: Item) -> Run:
        """A run, as it is now."""
        return open_run(item.path)

    def run_of(self, item: Item) -> Run | None:
        """The run that a file is in; None: it is in none, or that is damaged."""
        folder = next((one for one in item.path.parents if is_run(one)), None)
        try:
            return None if folder is None else open_run(folder)
        except DistillError:
            return None

    def parts(self, item: Item) -> list[Item]:
        """What is inside a run."""
        return [one for one in self.items if one.kind != "run" and item.path in one.path.parents]

    def comparison(self, item: Item) -> dict[str, Any]:
        """A comparison, as `compare --json` writes it; of several students, with the answers of each under its run.

        Raises:
            DistillError: the file holds something else.
        """
        try:
            found = json.loads(item.path.read_text(encoding="utf-8"))
            found = _joined(found["comparisons"]) if "comparisons" in found else found
            _ = found["verdict"], [(one["reference"], one["answers"], one["messages"]) for one in found["samples"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise DistillError(f"{item.name} is not a comparison", "`distill compare --json` writes one") from None
        checked: dict[str, Any] = found
        return checked


def _joined(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Comparisons of several students as one: the questions of the first, with everybody's answers."""
    answers = [
        {(one["source"], one["turn"]): one["answers"]["student"] for one in found["samples"]} for found in comparisons
    ]
    samples = []
    for sample in comparisons[0]["samples"]:
        place = (sample["source"], sample["turn"])
        said = {found["run"]: given[place] for found, given in zip(comparisons, answers, strict=True) if place in given}
        samples.append({**sample, "answers": said})
    return {
        "verdict": f"{len(comparisons)} students",
        "run": ", ".join(str(found["run"]) for found in comparisons),
        "reasons": [f"{found['run']}: {found['verdict']}" for found in comparisons],
        "samples": samples,
    }
