"""Merging files of transcripts, such as the shards of one collection, into one: by id, with nothing lost."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.collection.output import failed_path
from distill.collection.prompts import open_prompts
from distill.errors import DataError, UsageError
from distill.files.atomic import whole_file
from distill.files.jsonl import Appender, dumps, rows_with_offsets
from distill.transcripts.rows import message_to_dict, parse_transcript
from distill.types import Message, Transcript

_CONFLICTS_NAMED = 20

_TABLES = """
CREATE TABLE rows (id TEXT PRIMARY KEY, answer BLOB, position INTEGER, sample INTEGER, place TEXT,
                   file INTEGER, start INTEGER);
CREATE TABLE failures (id TEXT PRIMARY KEY, file INTEGER, start INTEGER);
CREATE TABLE prompts (key BLOB PRIMARY KEY, position INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two rows with one id and different conversations.

    Attributes:
        id: of both rows.
        kept, dropped: where they are, as `file:line`.
    """

    id: str
    kept: str
    dropped: str


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The result of a merge.

    Attributes:
        out: the merged file.
        rows: rows in it.
        added: of them, rows that were not in `out` before.
        duplicates: rows that were left out, since a row with the same id and the same conversation is there.
        conflicts: how many rows were left out although their conversation differs from that of the row with their id.
        named: the first conflicts.
        failed: rows in the merged file of failed rows; those that succeeded in any file are not among them.
        unordered: rows of no prompt in the prompt file, at the end of `out`; 0 without a prompt file.
    """

    out: str
    rows: int
    added: int
    duplicates: int
    conflicts: int
    named: Sequence[Conflict]
    failed: int
    unordered: int


def merge(out: str | Path, inputs: Sequence[str | Path], *, prompts: str | Path | None = None) -> MergeReport:
    """Merge files of transcripts into one, by id.

    The first row with an id wins; rows that are in `out` already come first, so merging again changes nothing. The
    inputs' files of failed rows are merged too. Memory does not grow with the number of rows.

    Args:
        out: the file to write, whole or not at all; it may exist.
        inputs: the files, in order of precedence.
        prompts: order the rows as this prompt file does; default: in the order of the files.

    Raises:
        UsageError: no inputs.
        DataError: a row is not a transcript, or a file cannot be read.
        DistillError: another process is writing to `out`.
    """
    out = Path(out)
    if not inputs:
        raise UsageError("nothing to merge", "name at least one file of transcripts")
    files = [*([out] if out.exists() else []), *(Path(path) for path in inputs if not _same(Path(path), out))]
    with ExitStack() as stack:
        if out.exists():
            stack.enter_context(Appender(out))  # its lock: no collection adds rows meanwhile
        index = stack.enter_context(_index_beside(out))
        if prompts is not None:
            _add_prompts(index, prompts)
        counts = _Counts(index, ordered=prompts is not None)
        before = 0
        for number, file in enumerate(files):
            counts.add_file(number, file)
            if file is out:
                (before,) = index.execute("SELECT count(*) FROM rows").fetchone()
        failures = [failed_path(file) for file in files]
        for number, file in enumerate(failures):
            _add_failures(index, number, file)
        order = "position IS NULL, position, sample, file, start" if prompts is not None else "file, start"
        rows = _copy(index, f"SELECT file, start FROM rows ORDER BY {order}", files, out)
        failed = _copy(
            index,
            "SELECT file, start FROM failures WHERE id NOT IN (SELECT id FROM rows) ORDER BY file, start",
            failures,
            failed_path(out),
        )
        (unordered,) = index.execute("SELECT count(*) FROM rows WHERE position IS NULL").fetchone()
        return MergeReport(
            out=str(out),
            rows=rows,
            added=rows - before,
            duplicates=counts.duplicates,
            conflicts=counts.conflicts,
            named=tuple(counts.named),
            failed=failed,
            unordered=unordered if prompts is not None else 0,
        )


class _Counts:
    """Enters rows into the index, and counts those that are not entered."""

    def __init__(self, index: sqlite3.Connection, *, ordered: bool):
        self._index, self._ordered = index, ordered
        self.duplicates = self.conflicts = 0
        self.named: list[Conflict] = []

    def add_file(self, number: int, path: Path) -> None:
        for source, row, start in rows_with_offsets(path, whole=True):
            transcript = parse_transcript(row, source)
            answer = _digest([message_to_dict(message) for message in transcript.messages])
            position = _position(self._index, transcript) if self._ordered else None
            sample = transcript.metadata.get("sample") or 0
            values = (transcript.id, answer, position, sample, str(source), number, start)
            if self._index.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", values).rowcount:
                continue
            query = "SELECT answer, place FROM rows WHERE id = ?"
            kept, place = self._index.execute(query, (transcript.id,)).fetchone()
            if kept == answer:
                self.duplicates += 1
                continue
            self.conflicts += 1
            if len(self.named) < _CONFLICTS_NAMED:
                self.named.append(Conflict(transcript.id, place, str(source)))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and os.path.samefile(one, other)


@contextmanager
def _index_beside(out: Path) -> Iterator[sqlite3.Connection]:
    """An empty index on disk, gone when the block ends."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror}", "choose a folder that exists and can be written") from None
    try:
        with folder, closing(sqlite3.connect(Path(folder.name) / "index", isolation_level=None)) as index:
            index.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
            index.execute("BEGIN")
            yield index
    except sqlite3.OperationalError as error:
        raise DataError(f"{folder.name}: {error}", "the index of a merge needs room beside its output") from None


def _add_failures(index: sqlite3.Connection, number: int, path: Path) -> None:
    """Enter a file of failed rows, if there is one: of each row the latest failure."""
    if path.is_file():
        for _, row, start in rows_with_offsets(path, whole=True):
            index.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (str(row.get("id")), number, start))


def _add_prompts(index: sqlite3.Connection, path: str | Path) -> None:
    with open_prompts(path) as file:
        for position, prompt in enumerate(file.read()):
            values = (_prompt_key(prompt.messages, prompt.tools), position)
            index.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", values)


def _position(index: sqlite3.Connection, transcript: Transcript) -> int | None:
    """Where the prompt file has a transcript's prompt; a system message may have been added by `--system`."""
    messages = tuple(transcript.messages)
    starts = [0, 1] if messages[0].role == "system" else [0]
    for end in range(len(messages) - 1, 0, -1):  # the longest prompt first: it may hold answers of its own
        for start in starts if end > 1 else [0]:
            key = _prompt_key(messages[start:end], transcript.tools)
            found = index.execute("SELECT position FROM prompts WHERE key = ?", (key,)).fetchone()
            if found:
                return int(found[0])
    return None


def _prompt_key(messages: Sequence[Message], tools: Sequence[Any]) -> bytes:
    return _digest([[message_to_dict(message) for message in messages], list(tools)])


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(dumps({"": value}).encode(), digest_size=16).digest()


def _copy(index: sqlite3.Connection, query: str, files: Sequence[Path], target: Path) -> int:
    """Write the rows of a query, read from their files, to a file that replaces `target`; no rows, no file."""
    count = 0
    with ExitStack() as stack:
        opened = {number: stack.enter_context(open(path, "rb")) for number, path in enumerate(files) if path.is_file()}
        with whole_file(target) as file:
            for number, start in index.execute(query):
                opened[number].seek(start)
                file.write(opened[number].readline().decode().rstrip("\r\n") + "\n")
                count += 1
    if not count:
        target.unlink(missing_ok=True)
    return count
