"""Conversations from one data format to another, with a report of what was lost.

The writers do not declare what is lost. Each written row is read again, and whatever differs from the conversation
before is lost.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from distill.errors import DataError, DistillError, RefusedRow, UsageError
from distill.files.atomic import whole_file
from distill.files.jsonl import dumps
from distill.files.text import check_text
from distill.plugins import PluginManager
from distill.specs import DialectSpec
from distill.transcripts.finish import Finish, finish_of, finish_reason_in
from distill.transcripts.reader import Reader, without_nulls
from distill.transcripts.rows import parse_transcript
from distill.transcripts.settings import ReadSettings
from distill.transcripts.sources import Data, as_sources
from distill.types import Message, Source, Transcript

Rows = Iterable[tuple[Source, dict[str, Any]]]

_FIELDS = ("content", "reasoning_content", "tool_calls", "tool_call_id", "name", "refusal")
_WRITTEN = Source("the written row", 1)


@dataclass(slots=True)
class ConversionLoss:
    """Something that is lost in rows, or a reason to leave rows out.

    Attributes:
        rows: the number of rows.
        example: the `file:line` of the first one.
    """

    rows: int
    example: str


@dataclass(slots=True)
class ConvertReport:
    """What became of the rows. `rows` is `converted` and `left_out` together.

    Attributes:
        to: the data format written.
        rows: rows read.
        converted: those that were written.
        left_out: those that the format cannot hold.
        written: rows written; more than `converted` where some were split by answer.
        split: the number of rows that were split.
        lost: kind of loss → the rows with it.
        reasons: reason → the rows left out for it.
    """

    to: str
    rows: int = 0
    converted: int = 0
    left_out: int = 0
    written: int = 0
    split: int = 0
    lost: dict[str, ConversionLoss] = field(default_factory=dict)
    reasons: dict[str, ConversionLoss] = field(default_factory=dict)


def convert(rows: Rows, target: DialectSpec, reader: Reader, write: Callable[[str], Any]) -> ConvertReport:
    """Convert rows.

    Args:
        rows: as they were read, each with its source.
        target: the data format to write.
        reader: reads the rows.
        write: called with each line, its newline included.

    Returns:
        The counts and the losses.

    Raises:
        DataError: a row is no conversation.
        UsageError: the format can only be read.
    """
    if target.write is None:
        raise UsageError(f"the data format {target.name} can be read, not written", "choose another --to")
    report = ConvertReport(target.name)
    for source, row in rows:
        report.rows += 1
        try:
            read = reader.read(row, source)
            lines, lost = _convert(read.transcript, target, target.write)
        except (RefusedRow, _Unwritable) as error:
            report.left_out += 1
            _count(report.reasons, error.reason, source)
            continue
        for line in lines:
            write(line + "\n")
        report.converted += 1
        report.written += len(lines)
        report.split += len(lines) > 1
        for kind in sorted(lost | read.lost):
            _count(report.lost, kind, source)
    return report


class _Unwritable(DataError):
    """A transcript that the target format cannot hold."""

    @property
    def reason(self) -> str:
        """Why."""
        return self.message


def _convert(
    transcript: Transcript, target: DialectSpec, write: Callable[[Transcript], dict[str, Any]]
) -> tuple[list[str], set[str]]:
    """The lines that a transcript becomes, and the kinds of loss."""
    parts = [transcript] if target.parts is None else target.parts(transcript)
    lines: list[str] = []
    lost: set[str] = set()
    for part in parts:
        try:
            line = dumps(write(part))
            check_text(line, "the row")
        except (DataError, ValueError) as error:
            raise _Unwritable(str(error)) from None
        written = target.read(without_nulls(json.loads(line)), str(_WRITTEN))
        again = parse_transcript({**written, "metadata": json.loads(line).get("metadata")}, _WRITTEN)
        lost |= set(losses(part, again))
        lines.append(line)
    longest = max((part.messages for part in parts), key=len)
    if len(longest) < len(transcript.messages):
        lost.add("messages")
    return lines, lost


def losses(before: Transcript, after: Transcript) -> Iterator[str]:
    """The kinds of loss between a conversation and its copy, as `ConvertReport.lost` has them."""
    if before.id not in (str(before.source), after.id):
        yield "id"
    if before.metadata != after.metadata:
        yield "metadata"
    cut, kept = finish_reason_in(before.metadata), finish_reason_in(after.metadata)
    if finish_of(cut) is not Finish.WHOLE and kept != cut:
        yield "finish_reason"
    if list(before.tools) != list(after.tools):
        yield "tools"
    if [message.role for message in before.messages] != [message.role for message in after.messages]:
        yield "messages"
        return
    pairs = list(zip(before.messages, after.messages, strict=True))
    for name in _FIELDS:
        changed = [(old, new) for old, new in pairs if _value(old, name) != _value(new, name)]
        if name == "content" and changed and not any(old.content or new.content for old, new in changed):
            yield "empty_content"
        elif changed:
            yield name
    if any(old.train != new.train for old, new in pairs):
        yield "weight"


def _value(message: Message, name: str) -> Any:
    value = getattr(message, name)
    return list(value) if isinstance(value, tuple) else value


def _count(findings: dict[str, ConversionLoss], kind: str, source: Source) -> None:
    findings.setdefault(kind, ConversionLoss(0, str(source))).rows += 1


def convert_file(
    source: Data,
    target: str | Path,
    to: str,
    manager: PluginManager,
    settings: ReadSettings | None = None,
    *,
    overwrite: bool = False,
    watch: Callable[[Rows], Rows] = lambda rows: rows,
) -> ConvertReport:
    """Convert data to a file, which is written atomically.

    Args:
        source: a file or other data, see `distill.transcripts.sources`; `-` is standard input.
        target: the file of JSON lines to make; `-` is standard output, which gets the rows as they come.
        to: the data format to write.
        manager: the plugins, which offer the formats.
        settings: how the rows are read; None: by their formats, detected row by row.
        overwrite: replace `target` where it exists.
        watch: gets the rows and returns them, e.g. through a progress bar.

    Raises:
        DataError: a row is no conversation, or there is none that `to` can hold.
        UsageError: `target` exists, or no such format.
    """
    sources, written = as_sources(source), manager.dialects.get(to)
    reader = (settings or ReadSettings()).reader(manager)
    name = ", ".join(map(str, sources))
    with _stdout() if str(target) == "-" else _new_file(Path(target), overwrite) as write:
        report = convert(watch(chain.from_iterable(map(reader.rows, sources))), written, reader, write)
        if not report.rows:
            raise DataError(f"{name} is empty", "give a file of conversations")
        if not report.converted:
            reason, finding = next(iter(report.reasons.items()))
            raise DataError(f"{finding.example}: {reason}; no row of {name} can be written as {to}")
    return report


@contextmanager
def _stdout() -> Iterator[Callable[[str], Any]]:
    """Standard output in UTF-8, whatever the locale."""
    yield lambda line: sys.stdout.buffer.write(line.encode())
    sys.stdout.buffer.flush()


@contextmanager
def _new_file(target: Path, overwrite: bool) -> Iterator[Callable[[str], Any]]:
    """The `write` of a file that becomes `target` when the block ends without an error."""
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a regular file", "give a file name, or - for standard output")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already", "give another file, or --force to replace it")
    try:
        with whole_file(Path(os.path.realpath(target))) as file:
            yield file.write
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file that can be written") from None
