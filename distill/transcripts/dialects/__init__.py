"""The shapes in which conversations are stored, and reading them. One file a dialect: its reader and its writer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.errors import unknown_name
from distill.transcripts.dialects.alpaca import ALPACA
from distill.transcripts.dialects.base import Dialect, Row
from distill.transcripts.dialects.files import detect, open_rows, rows_of
from distill.transcripts.dialects.messages import CANONICAL, OPENAI
from distill.transcripts.dialects.prompt_completion import PROMPT_COMPLETION
from distill.transcripts.dialects.sharegpt import SHAREGPT
from distill.transcripts.rows import parse_transcript
from distill.types import Source, Transcript

DIALECTS = {dialect.name: dialect for dialect in (CANONICAL, OPENAI, SHAREGPT, ALPACA, PROMPT_COMPLETION)}
_DETECTED = (CANONICAL, SHAREGPT, ALPACA, PROMPT_COMPLETION)  # OpenAI's rows are read as canonical ones

__all__ = ["DIALECTS", "Dialect", "find_dialect", "open_rows", "parse_row", "read_transcripts", "rows_of"]


def find_dialect(name: str) -> Dialect:
    """The dialect of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in DIALECTS:
        raise unknown_name("format", name, DIALECTS)
    return DIALECTS[name]


def read_transcripts(path: str | Path, data_format: str | None = None) -> Iterator[Transcript]:
    """Read a file of conversations: JSON lines or one JSON array, in any dialect.

    Args:
        path: the file.
        data_format: the dialect's name; None: found out row by row.

    Yields:
        Transcripts, each with the `source` it was read from; one without an `id` is given its `file:line`.

    Raises:
        DataError: a row is no conversation; says file, line and what is wrong.
        UsageError: no such dialect.
    """
    return parse_rows(open_rows(path), data_format)


def parse_rows(rows: Iterable[tuple[Source, dict[str, Any]]], data_format: str | None = None) -> Iterator[Transcript]:
    """As `read_transcripts`, from rows."""
    named = find_dialect(data_format) if data_format else None
    return (parse_row(row, source, named)[0] for source, row in rows)


def parse_row(row: Row, source: Source, named: Dialect | None = None) -> tuple[Transcript, Dialect]:
    """Read one row.

    Returns:
        The transcript, and the dialect it was in.

    Raises:
        DataError: it is no conversation.
    """
    dialect = named or detect(row, source, _DETECTED)
    return parse_transcript(dialect.read(row, str(source)), source), dialect
