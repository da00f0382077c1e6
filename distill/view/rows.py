"""A file of rows that is looked at without being loaded: an index of byte offsets, and searches over its lines."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.view.conditions import Condition, number_of

Show = Literal["all", "cut", "failed"]
Order = Literal["file", "longest", "shortest", "lowest", "highest"]

_BLOCK = 1 << 24
_KEPT = 4  # searches whose matches are kept


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        text: a text that a row must hold; case does not matter.
        show: all rows, those whose answer was cut at the token limit, or those that hold an error.
        where: what a number of the row must be; None: anything.
        order: as in the file, by the length of the row, or by the number that `where` names.
    """

    text: str = ""
    show: Show = "all"
    where: Condition | None = None
    order: Order = "file"


class RowFile:
    """A JSONL file by line numbers. Memory holds 8 bytes per row; a file that grows is followed.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._ends = array("Q")  # where each line ends, its newline included
        self._inode: int | None = None
        self._unended = False  # whether the last line had no newline yet
        self._found: dict[tuple[Query, int], Sequence[int]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def refresh(self) -> None:
        """Index what was added since the last time; a file that was replaced is indexed from its start."""
        import numpy

        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            size = self._ends[-1] if self._ends else 0
            if self._inode != status.st_ino or status.st_size < size:
                self._ends, self._inode, self._unended = array("Q"), status.st_ino, False
                self._found.clear()
            if self._unended:
                self._ends.pop()
            known = self._ends[-1] if self._ends else 0
            file.seek(known)
            while block := file.read(_BLOCK):
                breaks = numpy.flatnonzero(numpy.frombuffer(block, dtype=numpy.uint8) == 10) + (known + 1)
                self._ends.frombytes(breaks.astype(numpy.uint64).tobytes())
                known += len(block)
            self._unended = known > (self._ends[-1] if self._ends else 0)  # it is being written, perhaps
            if self._unended:
                self._ends.append(known)

    def line(self, number: int) -> bytes:
        """A line, by its number from 0."""
        start = self._ends[number - 1] if number else 0
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(self._ends[number] - start)

    def row(self, number: int) -> dict[str, Any] | None:
        """A row, by its line's number from 0; None where the line is no JSON object."""
        return _parsed(self.line(number))

    def find(self, query: Query) -> Sequence[int]:
        """The numbers of the lines that fit a query, in its order."""
        key = (query, self._ends[-1] if self._ends else 0)
        if key not in self._found:
            while len(self._found) >= _KEPT:
                del self._found[next(iter(self._found))]
            self._found[key] = self._search(query)
        return self._found[key]

    def _search(self, query: Query) -> Sequence[int]:
        numbers: Sequence[int] = range(len(self))
        values: Mapping[int, float] = {}
        if query.text or query.show != "all" or query.where is not None:
            numbers, values = self._scan(query)
        if query.order in ("lowest", "highest"):
            return sorted(numbers, key=values.__getitem__, reverse=query.order == "highest") if values else numbers
        if query.order == "file":
            return numbers
        return sorted(numbers, key=self._length, reverse=query.order == "longest")

    def _length(self, number: int) -> int:
        return self._ends[number] - (self._ends[number - 1] if number else 0)

    def _scan(self, query: Query) -> tuple[array[int], dict[int, float]]:
        """Read the file once, line by line: the lines that fit, and their numbers where `where` names one."""
        needles = {text.lower().encode() for text in (query.text, json.dumps(query.text)[1:-1])}
        needles.add(json.dumps(query.text, ensure_ascii=False)[1:-1].lower().encode())
        found, values = array("Q"), {}
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                if number >= len(self):
                    break
                if query.text:
                    lowered = line.decode("utf-8", "replace").lower().encode()
                    if not any(needle in lowered for needle in needles):
                        continue
                if not _fits(line, query.show):
                    continue
                if query.where is not None:
                    value = number_of(_parsed(line) or {}, query.where.name)
                    if value is None or not query.where.fits(value):
                        continue
                    values[number] = value
                found.append(number)
        return found, values


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _fits(line: bytes, show: Show) -> bool:
    if show == "all":
        return True
    if show == "cut":
        return b'"length"' in line and is_cut(_parsed(line) or {})
    return b'"error"' in line and "error" in (_parsed(line) or {})


def is_cut(row: dict[str, Any]) -> bool:
    """Whether the answer of a row was cut at the teacher's token limit."""
    metadata = row.get("metadata")
    return isinstance(metadata, dict) and metadata.get("finish_reason") == "length"
