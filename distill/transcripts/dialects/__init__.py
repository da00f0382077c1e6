"""The data formats in which conversations are stored, and reading them. One file per format: its reader and writer."""

from __future__ import annotations

from collections.abc import Iterator

from distill.errors import unknown_name
from distill.transcripts.dialects.alpaca import ALPACA
from distill.transcripts.dialects.base import Dialect, Row
from distill.transcripts.dialects.detect import detect
from distill.transcripts.dialects.messages import CANONICAL, OPENAI
from distill.transcripts.dialects.prompt_completion import PROMPT_COMPLETION
from distill.transcripts.dialects.sharegpt import SHAREGPT
from distill.transcripts.rows import parse_transcript
from distill.transcripts.sources import Data, as_sources
from distill.types import Source, Transcript

DIALECTS = {dialect.name: dialect for dialect in (CANONICAL, OPENAI, SHAREGPT, ALPACA, PROMPT_COMPLETION)}
_DETECTED = (CANONICAL, SHAREGPT, ALPACA, PROMPT_COMPLETION)  # OpenAI's rows are read as canonical ones

__all__ = ["DIALECTS", "Dialect", "find_dialect", "parse_row", "read_transcripts"]


def find_dialect(name: str) -> Dialect:
    """The data format of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in DIALECTS:
        raise unknown_name("data format", name, DIALECTS)
    return DIALECTS[name]


def read_transcripts(data: Data, data_format: str | None = None) -> Iterator[Transcript]:
    """Read conversations, in any data format.

    Args:
        data: a path, `hub:owner/name`, a list of dicts, a data set or a frame, or several of these; see
            `distill.transcripts.sources`.
        data_format: the format's name; None: detected row by row.

    Yields:
        Transcripts, each with the `source` it was read from; one without an `id` is given its `file:line`.

    Raises:
        DataError: a row is no conversation; names file, line and what is wrong.
        UsageError: no such format, or the data are of a type that cannot be read.
    """
    named = find_dialect(data_format) if data_format else None
    return (parse_row(row, source, named)[0] for one in as_sources(data) for source, row in one.rows())


def parse_row(row: Row, source: Source, named: Dialect | None = None) -> tuple[Transcript, Dialect]:
    """Read one row.

    Returns:
        The transcript, and the data format it was in.

    Raises:
        DataError: it is no conversation.
    """
    dialect = named or detect(row, source, _DETECTED)
    return parse_transcript(dialect.read(row, str(source)), source), dialect
