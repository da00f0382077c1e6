"""Files of rows, JSON lines or one JSON array, and which dialect a row is in."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from distill.errors import DataError
from distill.files.jsonl import parse_rows, refuse_constant
from distill.transcripts.dialects.base import Dialect, Row
from distill.types import Source

_BINARY = {b"PAR1": "a Parquet file", b"\x1f\x8b": "a gzip archive", b"PK\x03\x04": "a zip archive"}
_OTHER_SHAPES = {
    ("chosen", "rejected"): "preferences: keep the good answer only",
    ("preferred_output", "non_preferred_output"): "preferences: keep the good answer only",
    ("custom_id", "response"): "a batch's output: answers without their questions",
    ("custom_id", "body"): "a batch's input: questions without their answers",
    ("prompt",): "a prompt, whose answer `distill collect` gets",
    ("turns",): "a prompt, whose answers `distill collect` gets",
    ("text",): "plain text, not a conversation",
}


def open_rows(path: str | Path) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Read a file's rows; see `rows_of`.

    Raises:
        DataError: it is missing or unreadable, or a row is malformed.
    """
    try:
        with open(path, "rb") as file:
            yield from rows_of(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def rows_of(file: IO[bytes], name: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Read JSON lines row by row; or one JSON array of objects, as `.json` files of Alpaca and ShareGPT are.

    Args:
        file: an open binary file; it need not be seekable.
        name: what errors call it.

    Raises:
        DataError: something else; says file and line.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[arg-type]
    head = buffered.peek(64)
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {kind}", "give JSON lines, or a JSON array of objects, in UTF-8")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return _array(buffered.read(), name)
    return parse_rows(buffered, name)


def _array(data: bytes, name: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """The objects of an array, each with the line it starts in; the second one in a line has its number added."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: {error}", "save the file as UTF-8") from None
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    at, line, counted, number, before = _skip(text, text.index("[") + 1), 1, 0, 0, 0
    while text[at : at + 1] != "]":
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        try:
            row, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}:{error.lineno}: {error.msg}", "the file is not a whole JSON array") from None
        except (ValueError, RecursionError) as error:
            reason = "the JSON is nested too deeply" if isinstance(error, RecursionError) else error
            raise DataError(f"{name}:{line}: {reason}") from None
        if not isinstance(row, dict):
            raise DataError(f"{name}:{line}: element {number} of the array is not an object")
        yield Source(name if line > before else f"{name}[{number}]", line), row
        before, at = line, _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise DataError(f"{name}:{line}: no comma after element {number}", "the file is not a whole JSON array")
    if _skip(text, at + 1) < len(text):
        raise DataError(f"{name}:{line}: more text after the array", "give one JSON array, or JSON lines")


def _skip(text: str, at: int) -> int:
    """Where the white space from `at` on ends."""
    while text[at : at + 1] in (" ", "\n", "\r", "\t") and at < len(text):
        at += 1
    return at


def detect(row: Row, source: Source, dialects: tuple[Dialect, ...]) -> Dialect:
    """The dialect of a row, by its keys.

    Raises:
        DataError: it has the keys of none, or of several; says what was found, and what to name.
    """
    found = [dialect for dialect in dialects if dialect.matches(row)]
    if len(found) == 1:
        return found[0]
    names = " and ".join(dialect.name for dialect in found)
    if found:
        raise DataError(f"{source}: the row has the keys of {names}", "say which, with --from NAME")
    keys = ", ".join(list(row)[:10]) + (", …" if len(row) > 10 else "") or "none"
    shape = next((text for keys, text in _OTHER_SHAPES.items() if set(keys) <= set(row)), None)
    looks = f"; it looks like {shape}" if shape else ""
    known = "; ".join(f"{dialect.name} ({dialect.summary})" for dialect in dialects)
    raise DataError(
        f"{source}: a row of no known format: its keys are {keys}{looks}", f"known are {known}; rename its keys"
    )
