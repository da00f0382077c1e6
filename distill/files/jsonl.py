"""JSON lines on disk: strict reading with `file:line`, and appending that survives a kill at any moment."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonlines

from distill.errors import DataError, DistillError
from distill.files.atomic import check_is_file, naming
from distill.files.lock import take_lock
from distill.files.nearby import did_you_mean
from distill.types import Source


def dumps(row: Mapping[str, Any]) -> str:
    """Write a row as one line of JSON, without its newline; non-ASCII text stays readable, NaN is refused."""
    return _encode(row)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def read_rows(path: str | Path) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Read a JSONL file, object by object; blank lines are skipped.

    Raises:
        DataError: the file is missing or unreadable, or a line is not UTF-8, not JSON or not an object.
    """
    try:
        with open(path, "rb") as file:
            yield from parse_rows(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", did_you_mean(path, Path.is_file)) from None


def parse_rows(lines: Iterable[bytes], name: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """As `read_rows`, from the lines of a file that errors call `name`."""
    number = 0

    def counted() -> Iterator[bytes]:  # jsonlines gives the line number of bad rows only
        nonlocal number
        for number, line in enumerate(lines, 1):  # noqa: B007 - it is read outside
            yield line

    # Without loads=, jsonlines reads with orjson where that is installed, which differs from json.
    reader = jsonlines.Reader(counted(), loads=_loads)
    try:
        for row in reader.iter(type=dict, skip_empty=True):
            yield Source(name, number), row
    except jsonlines.InvalidLineError as error:
        cause = error.__cause__
        reason = str(cause or "the line is not a JSON object")
        if isinstance(cause, json.JSONDecodeError):  # its own message counts lines within the line
            reason = f"{cause.msg} at character {cause.pos + 1}"
        raise DataError(f"{name}:{number}: {reason}", "each line must be one JSON object in UTF-8") from None


def rows_with_offsets(path: str | Path, *, whole: bool = False) -> Iterator[tuple[Source, dict[str, Any], int]]:
    """As `read_rows`, each row with the byte at which its line starts.

    Args:
        path: the file.
        whole: pass over a last line that is cut short: a collection is still writing it, or was killed.

    Raises:
        DataError: as `read_rows`.
    """
    start = end = 0

    def lines(file: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal start, end
        for line in file:
            if whole and not line.endswith(b"\n") and not line.rstrip().endswith(b"}"):
                return
            start, end = end, end + len(line)
            yield line

    try:
        with open(path, "rb") as file:
            for source, row in parse_rows(lines(file), str(path)):
                yield source, row, start
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def refuse_constant(name: str) -> None:
    """For `json`'s parse_constant: NaN and the infinities are not JSON."""
    raise ValueError(f"{name} is not JSON")


SYNC_SECONDS = 1.0
"""Seconds between two syncs of a file that is appended to."""


class Appender:
    """Appends rows to a JSONL file: one `write` per row, one writer per file.

    A row outlives the process as soon as it is written. Against a power cut, the file is synced to disk with the first
    row that comes a second or more after the last sync, and when it is closed.

    A row that cannot be written, as on a full disk, is kept in memory, and tried again with the next one and at the
    end.

    On opening, whatever follows the last whole row (a line that a kill cut short, or the garbage of a power cut) is
    moved to `FILE.quarantine`, so that new rows are never joined to it. Use it as a context manager.

    Args:
        path: the file; created if it does not exist.

    Raises:
        DistillError: another process has the file open for appending, or it cannot be written.

    Attributes:
        quarantined: the number of bytes moved away on opening.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        check_is_file(self.path)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            hint = "choose a file that can be written"
            if not self.path.parent.exists():
                hint = f"there is no folder {str(self.path.parent)!r}: make it first, or choose another file"
            raise DistillError(f"{path}: {error.strerror}", hint) from None
        self._unwritten: deque[bytes] = deque()
        self._torn: int | None = None  # the size to cut the file back to, after a write that failed half-way
        self.quarantined = 0
        try:
            take_lock(self._fd, path)
            _check_room(self._fd, path)
            with naming(path):
                while moved := self._repair_tail():  # a power cut may leave several lines of garbage
                    self.quarantined += moved
        except BaseException:
            os.close(self._fd)
            raise
        self._next_sync = time.monotonic() + SYNC_SECONDS

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row, all of it or nothing.

        Raises:
            DistillError: the disk is full, or the write failed otherwise.
        """
        self.append_line(dumps(row).encode())

    def append_line(self, line: bytes) -> None:
        """As `append`, from the row's JSON: one line without its newline."""
        self._unwritten.append(line + b"\n")
        try:
            self._write()
        except OSError as error:
            hint = "the rows before this one are safe; the same command resumes"
            raise DistillError(f"{self.path}: {error.strerror}", hint) from None
        if time.monotonic() >= self._next_sync:
            self._sync()

    def _write(self) -> None:
        """Write the rows that are not in the file yet, each whole or not at all."""
        while self._unwritten:
            self._cut_back()
            size = os.fstat(self._fd).st_size
            line = self._unwritten.popleft()
            try:
                written = os.write(self._fd, line)
                while written < len(line):  # a signal or a nearly full disk may cut a write short
                    written += os.write(self._fd, line[written:])
            except OSError:
                self._unwritten.appendleft(line)
                self._torn = size
                with suppress(OSError):
                    self._cut_back()
                raise

    def _cut_back(self) -> None:
        """Remove what a write that failed has left of its row."""
        if self._torn is not None:
            os.ftruncate(self._fd, self._torn)
            self._torn = None

    def _sync(self) -> None:
        """Sync to disk. A slow disk is synced less often: it takes a twentieth of the time at most."""
        began = time.monotonic()
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no sync
                hint = "the disk failed: look at the last rows"
                raise DistillError(f"{self.path}: {error.strerror}", hint) from None
        now = time.monotonic()
        self._next_sync = now + max(SYNC_SECONDS, 20 * (now - began))

    def close(self) -> None:
        """Flush to disk and release the file.

        Raises:
            DistillError: the disk failed; tells how many rows are lost.
        """
        if self._fd < 0:
            return
        try:
            self._write()
            self._sync()
        except OSError as error:
            lost = f"{len(self._unwritten)} rows could not be written"
            hint = "they will be made again; the rows before them are safe"
            raise DistillError(f"{self.path}: {error.strerror}; {lost}", hint) from None
        finally:
            os.close(self._fd)
            self._fd = -1

    def _repair_tail(self) -> int:
        """Move whatever follows the last whole row to `FILE.quarantine`; returns the number of bytes."""
        size = os.fstat(self._fd).st_size
        start, tail = self._last_line(size)
        if not tail:
            return 0
        if tail.endswith(b"\n") and _is_row(tail):
            return 0
        if _is_row(tail):  # only its newline is missing
            os.write(self._fd, b"\n")
            return 0
        with open(f"{self.path}.quarantine", "ab") as quarantine:
            quarantine.write(tail if tail.endswith(b"\n") else tail + b"\n")
            quarantine.flush()
            os.fsync(quarantine.fileno())
        os.ftruncate(self._fd, start)
        return len(tail)

    def _last_line(self, size: int) -> tuple[int, bytes]:
        """Where the last line starts, and its bytes, its newline included."""
        start, tail = size, b""
        while start > 0:
            step = min(1 << 16, start)
            start -= step
            tail = os.pread(self._fd, step, start) + tail
            cut = tail.rfind(b"\n", 0, len(tail) - 1)
            if cut >= 0:
                return start + cut + 1, tail[cut + 1 :]
        return start, tail


def _check_room(descriptor: int, path: str | Path) -> None:
    """Refuse a full disk before anything is paid for that could not be written to it."""
    with suppress(OSError):
        disk = os.fstatvfs(descriptor)
        if disk.f_blocks and not disk.f_bavail:
            raise DistillError(f"{path}: the disk is full", "make room on it, or choose a file on another one")


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return not line.strip() and b"\0" not in line and line.endswith(b"\n")
