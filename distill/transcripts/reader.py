"""Reading conversations in any data format that a plugin offers: detected row by row, or named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from distill.errors import DataError, RefusedRow
from distill.plugins import PluginManager, make_plugin_manager
from distill.specs import DialectSpec
from distill.transcripts.checksum import without_checksum
from distill.transcripts.columns import hidden_columns, merged_metadata, other_columns
from distill.transcripts.reasoning import split_thinking
from distill.transcripts.rows import MESSAGE_FIELDS, parse_transcript
from distill.transcripts.sources import Data, DataSource, as_sources
from distill.types import Source, Transcript

Row = Mapping[str, Any]
Rows = Iterator[tuple[Source, dict[str, Any]]]

_REFUSED = "__refused__"
"""What a format's `join` says of a conversation that is not to be learnt from; see `DialectSpec`."""

_JOINED = "__joined__"
"""Marks rows that a format has joined: they are canonical."""

_OTHER_SHAPES = {
    ("chosen", "rejected"): "preferences: keep the good answer only",
    ("preferred_output", "non_preferred_output"): "preferences: keep the good answer only",
    ("custom_id", "response"): "a batch's output: answers without their questions",
    ("custom_id", "body"): "a batch's input: questions without their answers",
    ("prompt",): "a prompt, whose answer `distill collect` gets",
    ("turns",): "a prompt, whose answers `distill collect` gets",
    ("text",): "plain text, not a conversation",
}


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row as it was read.

    Attributes:
        transcript: the conversation.
        dialect: the data format it was in.
        unknown: its columns that nobody here knows, which are in the metadata now.
        lost: its columns and message fields that are not in the transcript, in words.
        is_intact: whether the row is as it was written, by its checksum; so is one without.
    """

    transcript: Transcript
    dialect: DialectSpec
    unknown: tuple[str, ...]
    lost: frozenset[str]
    is_intact: bool = True


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows of any data format.

    Attributes:
        dialects: all formats there are.
        named: the format of all rows; None: detected row by row.
        split_thinking: move reasoning in tags within answers to `reasoning_content`.
        ignored: columns that would refuse a row, but mean something else in these data.
    """

    dialects: tuple[DialectSpec, ...]
    named: DialectSpec | None = None
    split_thinking: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[Any, ...]:
        """Whatever changes how rows of a format are read."""
        return self.split_thinking, self.ignored

    def rows(self, source: DataSource) -> Rows:
        """Read the rows of a source; those that are parts of conversations are joined.

        Raises:
            DataError: the source cannot be read; names file and line.
        """
        rows = source.rows()
        first = next(rows, None)
        if first is None:
            return
        everything = chain([first], rows)
        dialect = self._joining(without_nulls(first[1]))
        if dialect is None or dialect.join is None:
            yield from everything
        else:
            yield from ((source, {**row, _JOINED: True}) for source, row in dialect.join(everything))

    def _joining(self, first: Row) -> DialectSpec | None:
        """The format whose rows are parts of conversations, by the first row; None for other formats."""
        candidates = self.dialects if self.named is None else (self.named,)
        return next((one for one in candidates if one.is_part is not None and one.is_part(first)), None)

    def read(self, row: Row, source: Source) -> ReadRow:
        """Read one row.

        Raises:
            DataError: it is no conversation; names file, line and what is wrong.
            RefusedRow: it is not one to learn from.
        """
        try:
            return self._read(row, source)
        except RefusedRow as error:
            error.source = source
            raise

    def _read(self, row: Row, source: Source) -> ReadRow:
        row, is_intact = without_checksum(row, source)
        whole, where = row, str(source)
        row = without_nulls({key: value for key, value in row.items() if key != _JOINED})
        if isinstance(row.get(_REFUSED), str):
            raise RefusedRow(f"{where}: {row[_REFUSED]}", "leave such conversations out")
        dialect = self._dialect(row, whole, source)
        others = other_columns(row, dialect.columns, where, self.ignored)
        canonical = dialect.read(row, where)
        left = {**others, **(canonical.get("metadata") or {})}
        canonical = {**canonical, "metadata": merged_metadata(row, left)}
        transcript = parse_transcript(canonical, source)
        if self.split_thinking:
            transcript = replace(transcript, messages=tuple(map(split_thinking, transcript.messages)))
        lost = {f"column `{key}`" for key in hidden_columns(row, left)} | _lost_fields(canonical["messages"])
        return ReadRow(transcript, dialect, tuple(others), frozenset(lost), is_intact)

    def _dialect(self, row: Row, whole: Row, source: Source) -> DialectSpec:
        if _JOINED in whole:
            return next(dialect for dialect in self.dialects if dialect.name == "canonical")
        if self.named is not None:
            return self.named
        found = [dialect for dialect in self.dialects if dialect.matches(row)]
        if len(found) == 1:
            return found[0]
        if not found and len(row) < len(whole) and any(dialect.matches(whole) for dialect in self.dialects):
            nulls = ", ".join(f"`{key}`" for key, value in whole.items() if value is None)
            raise RefusedRow(f"{source}: the row is incomplete: null in {nulls}", "leave such rows out")
        raise _unknown_format(row, source, found, self.dialects)

    def outcomes(self, data: Data) -> Iterator[Transcript | RefusedRow]:
        """Read conversations, and the errors of the rows that are refused, in the order of the data.

        Args:
            data: see `distill.transcripts.sources`.

        Raises:
            DataError: a row is no conversation; names file, line and what is wrong.
        """
        for one in as_sources(data):
            for source, row in self.rows(one):
                try:
                    yield self.read(row, source).transcript
                except RefusedRow as error:
                    yield error

    def transcripts(self, data: Data, refused: Callable[[RefusedRow], None] | None = None) -> Iterator[Transcript]:
        """As `outcomes`, without the refused rows.

        Args:
            data: see `distill.transcripts.sources`.
            refused: told of each row that is refused; None: the first one is raised.
        """
        for outcome in self.outcomes(data):
            if isinstance(outcome, Transcript):
                yield outcome
            elif refused is None:
                raise outcome
            else:
                refused(outcome)


def skip_refused(error: RefusedRow) -> None:
    """Skip refused rows: for a second reading of data, whose first one reports them."""


def make_reader(
    data_format: str | None = None,
    manager: PluginManager | None = None,
    *,
    split_thinking: bool = False,
    ignored: tuple[str, ...] = (),
) -> Reader:
    """Make a reader of all data formats that plugins offer.

    Args:
        data_format: the format of all rows; None: detected row by row.
        manager: the plugins; None: a fresh manager.
        split_thinking, ignored: see `Reader`.

    Raises:
        UsageError: no such format.
    """
    manager = manager or make_plugin_manager()
    named = manager.dialects.get(data_format) if data_format else None
    return Reader(tuple(manager.dialects), named, split_thinking, ignored)


def read_transcripts(
    data: Data, data_format: str | None = None, manager: PluginManager | None = None
) -> Iterator[Transcript]:
    """Read conversations, in any data format.

    Args:
        data: a path, `hub:owner/name`, a list of dicts, a data set or a frame, or several of these; see
            `distill.transcripts.sources`.
        data_format: the format's name; None: detected row by row.
        manager: the plugins, which offer the formats; None: a fresh manager.

    Yields:
        Transcripts, each with the `source` it was read from; one without an `id` is given its `file:line`.

    Raises:
        DataError: a row is no conversation, or not one to learn from; names file, line and what is wrong.
        UsageError: no such format, or the data are of a type that cannot be read.
    """
    return make_reader(data_format, manager).transcripts(data)


def without_nulls(row: Row) -> dict[str, Any]:
    """A row without its null columns: files of several schemas have the other schemas' columns as nulls."""
    return {key: value for key, value in row.items() if value is not None}


def _unknown_format(
    row: Row, source: Source, found: Sequence[DialectSpec], dialects: Sequence[DialectSpec]
) -> DataError:
    """The error for a row with the keys of no format, or of several; the hint lists the formats."""
    names = " and ".join(dialect.name for dialect in found)
    if found:
        return DataError(f"{source}: the row has the keys of {names}", "name its format with --from")
    keys = ", ".join(list(row)[:10]) + (", …" if len(row) > 10 else "") or "none"
    shape = next((text for keys, text in _OTHER_SHAPES.items() if set(keys) <= set(row)), None)
    looks = f"; it looks like {shape}" if shape else ""
    known = "; ".join(f"{dialect.name} ({dialect.summary})" for dialect in dialects if dialect.write is not None)
    return DataError(
        f"{source}: a row of no known data format: its keys are {keys}{looks}",
        f"rename its keys; formats are {known}; exports of other programs are in `distill plugins`",
    )


def _lost_fields(messages: Any) -> set[str]:
    """The fields of messages that are not read; empty ones do not count."""
    if not isinstance(messages, list):
        return set()
    found = {key for message in messages if isinstance(message, dict) for key, value in message.items() if value}
    return {f"message field `{key}`" for key in found.difference(MESSAGE_FIELDS)}
