"""JSON files that are not JSON lines: one array of objects, or objects printed over several lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from distill.errors import DataError
from distill.files.jsonl import refuse_constant
from distill.types import Source

_NOT_AN_ARRAY = "the file is not a whole JSON array"
_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def read_array(data: bytes, name: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Read one array of objects.

    Args:
        data: the whole file.
        name: what errors call it.

    Yields:
        Each object with the line it starts in; the second one in a line has its number added to the name.

    Raises:
        DataError: it is not UTF-8, not a whole array, or an element is not an object; names file and line.
    """
    text = _decode(data, name)
    lines = _Lines(text)
    at, number, line, before = _skip(text, text.index("[") + 1), 0, 1, 0
    while text[at : at + 1] != "]":
        line, number = lines.number(at), number + 1
        row, end = _value(text, at, f"{name}:{line}", name, _NOT_AN_ARRAY)
        if not isinstance(row, dict):
            raise DataError(f"{name}:{line}: element {number} of the array is not an object")
        yield Source(name if line > before else f"{name}[{number}]", line), row
        before, at = line, _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise DataError(f"{name}:{line}: no comma after element {number}", _NOT_AN_ARRAY)
    if _skip(text, at + 1) < len(text):
        raise DataError(f"{name}:{line}: more text after the array", "give one JSON array, or JSON lines")


def read_objects(data: bytes, name: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Read objects that follow one another, each over several lines; see `read_array`."""
    text = _decode(data, name)
    lines = _Lines(text)
    at = _skip(text, 0)
    while at < len(text):
        line = lines.number(at)
        row, end = _value(text, at, f"{name}:{line}", name, "give JSON objects in UTF-8")
        if not isinstance(row, dict):
            raise DataError(f"{name}:{line}: not an object", "give JSON objects in UTF-8")
        yield Source(name, line), row
        at = _skip(text, end)


class _Lines:
    """Line numbers of growing positions in a text."""

    def __init__(self, text: str):
        self._text, self._line, self._counted = text, 1, 0

    def number(self, at: int) -> int:
        """The line, from 1, of a position that is not before the last one."""
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: {error}", "save the file as UTF-8") from None


def _value(text: str, at: int, where: str, name: str, hint: str) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno}: {error.msg}", hint) from None
    except RecursionError:
        raise DataError(f"{where}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _skip(text: str, at: int) -> int:
    """The position of the next character that is not white space."""
    while at < len(text) and text[at] in " \n\r\t":
        at += 1
    return at
