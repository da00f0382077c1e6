"""Prompts: from files of any common format, from lists, data sets and frames; read row by row, as often as needed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

from distill.collection.prompt_rows import COMMON_PARAMS, SHAPE, PromptReader, prompt_to_dict
from distill.errors import DataError
from distill.files.nearby import did_you_mean
from distill.files.rows import decompressed, file_format, looks_like_table, rows_of
from distill.transcripts.sources import DataInput, as_sources
from distill.types import Prompt, Source

__all__ = ["COMMON_PARAMS", "PromptInput", "PromptReader", "Prompts", "open_prompts", "prompt_to_dict"]

PromptInput: TypeAlias = DataInput | Iterable[Prompt | str | Mapping[str, Any]]
"""What prompts may be given as: a file (`-` is standard input), a data set, a frame, or prompts, texts and rows."""

_PEEK = 4096
_TEXT_ENDINGS = ("", ".txt", ".text", ".gz", ".zst", ".bz2", ".xz")
_OTHER_TEXT = re.compile(rb"\s*(?:---\s*$|(?:- +)?(?:prompt|messages|turns): |<\?xml|<!doctype|%PDF-)", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Open prompts. `read` may be called again: memory never holds more than one row of a file.

    Attributes:
        name: what errors call them.
        path: the file they come from, if any.
        hint: what to write where there is none.
    """

    name: str
    path: Path | None
    hint: str
    _rows: Callable[[], Iterator[Prompt]]

    def read(self, limit: int | None = None) -> Iterator[Prompt]:
        """Read the prompts, from the first one.

        Args:
            limit: read only the first N.

        Raises:
            DataError: a row is not a prompt; names file, line and what is wrong.
        """
        return islice(self._rows(), limit)


@contextmanager
def open_prompts(prompts: PromptInput, reader: PromptReader | None = None) -> Iterator[Prompts]:
    """Open prompts.

    Args:
        prompts: a file of rows (JSON lines, a JSON array, CSV, TSV or Parquet, plain or compressed), or of text with
            one prompt per line; `-` is standard input. What can be read only once is first copied to a temporary
            file. Or prompts in memory; see `PromptInput`.
        reader: makes prompts of rows and texts.

    Raises:
        DataError: they cannot be read.
    """
    reader = reader or PromptReader()
    if not isinstance(prompts, (str, os.PathLike)) or str(prompts).startswith("hub:"):
        yield _in_memory(prompts, reader)
        return
    path = Path(prompts)
    name = "<stdin>" if str(path) == "-" else str(path)
    try:
        file = _rereadable(path)
    except OSError as error:
        hint = did_you_mean(path, Path.is_file) or "give a file of prompts, or - for stdin"
        raise DataError(f"{name}: {error.strerror or error}", hint) from None
    with file:
        if _is_text(_from_the_start(file), name):
            yield Prompts(name, path, "write one prompt per line", lambda: _texts(_from_the_start(file), name, reader))
        else:
            yield Prompts(name, path, SHAPE, lambda: _rows(_from_the_start(file), name, reader))


def _rows(file: io.BufferedReader, name: str, reader: PromptReader) -> Iterator[Prompt]:
    with file:
        for source, row in rows_of(file, name):
            yield reader.row(row, source)


def _texts(file: io.BufferedReader, name: str, reader: PromptReader) -> Iterator[Prompt]:
    with file:
        for number, line in enumerate(decompressed(file), 1):
            source = Source(name, number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{source}: {error}", "save the file as UTF-8") from None
            if text.strip():
                yield reader.text(text, source)


def _in_memory(prompts: Any, reader: PromptReader) -> Prompts:
    """Prompts that are no file: a data set, a frame, or an iterable, which is read once and kept."""
    table = isinstance(prompts, str) or any(
        hasattr(prompts, name) for name in ("with_format", "itertuples", "__arrow_c_stream__", "rereadable")
    )
    if table:
        (source,) = as_sources(prompts)
        return Prompts(source.name, source.path, SHAPE, lambda: (reader.row(row, at) for at, row in source.rows()))
    kept = prompts if isinstance(prompts, (list, tuple)) else list(prompts)
    return Prompts("<list>", None, SHAPE, lambda: _listed(kept, reader))


def _listed(prompts: Iterable[Any], reader: PromptReader) -> Iterator[Prompt]:
    for number, one in enumerate(prompts, 1):
        source = Source("<list>", number)
        if isinstance(one, Prompt):
            yield reader.prompt(one, source)
        elif isinstance(one, str):
            yield reader.text(one, source)
        elif isinstance(one, Mapping):
            yield reader.row(dict(one), source)
        else:
            raise DataError(f"{source}: a prompt is a text, a dict or a Prompt, not {type(one).__name__}", SHAPE)


def _rereadable(path: Path) -> IO[bytes]:
    if str(path) != "-" and not path.is_fifo() and not path.is_char_device():
        return open(path, "rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - open_prompts closes it
    with open(sys.stdin.fileno() if str(path) == "-" else path, "rb", closefd=str(path) != "-") as file:
        shutil.copyfileobj(file, copy)
    copy.flush()
    return copy


def _from_the_start(file: IO[bytes]) -> io.BufferedReader:
    """The same file, opened once more: its reader may close it."""
    opened = os.fdopen(os.dup(file.fileno()), "rb")
    opened.seek(0)
    return opened


def _is_text(file: io.BufferedReader, name: str) -> bool:
    """Whether a file holds one prompt per line, and not rows.

    Raises:
        DataError: it is text by its name and rows by its content, or the other way round: it would be asked line by
            line.
    """
    with file:
        head = decompressed(file).peek(_PEEK)[:_PEEK].removeprefix(b"\xef\xbb\xbf")
    found = file_format(head, name)
    named_text = name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")
    if found in ("jsonl", "json", "json-array") and named_text and head.strip():
        if not _is_json(head):
            return True  # text that starts with a bracket
        raise DataError(f"{name}: a text file that holds JSON", "name it .jsonl or .json, to have its rows read")
    if found != "text":
        return not head.strip() if named_text else False
    if kind := looks_like_table(head):
        raise DataError(f"{name} looks like {kind}, not like one prompt per line", f"name it .{kind.lower()}")
    if (ending := Path(name).suffix.lower()) not in _TEXT_ENDINGS:
        raise DataError(
            f"{name} is not read as prompts: a {ending} file may be anything",
            "name it .txt if it has one prompt per line; else save it as JSON lines or CSV",
        )
    if _OTHER_TEXT.match(head):
        raise DataError(
            f"{name} looks like YAML, XML or PDF, not like one prompt per line", "save it as JSON lines or CSV"
        )
    return True


def _is_json(head: bytes) -> bool:
    """Whether the first bytes are the beginning of JSON rows."""
    start = head.decode("utf-8", "replace").strip()
    line = start.partition("\n")[0].strip()
    if line in ("[", "{", "[{"):
        return True
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return line.startswith(('{"', "[{"))
