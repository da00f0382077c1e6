"""`score`: a teacher's log probabilities of answers that are there already."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.collection.row_id import IdSet
from distill.collection.teachers import NamedTeacher, make_teacher
from distill.errors import DataError, DistillError, PluginError, UsageError, one_line
from distill.files.jsonl import Appender, read_rows
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import Progress
from distill.protocols import ScoringTeacher
from distill.transcripts.checksum import sealed
from distill.transcripts.reader import Reader, make_reader
from distill.transcripts.rows import transcript_to_dict
from distill.transcripts.sources import Data
from distill.types import Request, Transcript

log = logging.getLogger("distill")

_WINDOW = 8
"""Batches of rows that are read before they are scored: a teacher orders them by length."""

MARK = "scored_by"
"""The key of a row's metadata that names the teacher who scored it."""


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """What a scoring did. Every row of the data is in exactly one of rows, cached, failed, duplicates.

    Attributes:
        out: the file of scored transcripts.
        rows: transcripts written by this run.
        answers: their answers that were scored.
        tokens: the teacher's tokens of these.
        cached: rows that were in the file already.
        failed: rows without a scored answer; they are not in the file.
        duplicates: rows whose id an earlier row has.
        seconds: how long it took.
        reasons: why rows failed, and how many for each reason.
    """

    out: str
    rows: int = 0
    answers: int = 0
    tokens: int = 0
    cached: int = 0
    failed: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)


def score(
    data: Data,
    teacher: str | NamedTeacher,
    out: str | Path,
    *,
    logprobs: int = 20,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    reader: Reader | None = None,
    manager: PluginManager | None = None,
    progress: bool = False,
) -> ScoreSummary:
    """Add a teacher's log probabilities to transcripts, and write them to a file.

    Each row is on disk as soon as it is scored. Rows that are in the file are not scored again: calling this again
    resumes an interrupted scoring.

    Args:
        data: the transcripts.
        teacher: `NAME[:MODEL]`, or what `make_teacher` made of it.
        out: the file of scored transcripts, created or added to.
        logprobs: how many likeliest tokens per place.
        options: the teacher's options, where it is given by name.
        limit: take only so many rows.
        reader: reads the rows; None: their format is detected row by row.
        manager: the plugins; default: those that are installed.
        progress: whether to show how far it is.

    Raises:
        UsageError: this teacher cannot score, or the file has rows that another teacher scored.
        DataError: a row of the data, or of the file, is malformed.
    """
    began = time.perf_counter()
    named = teacher
    if isinstance(named, str):
        named = make_teacher(manager or make_plugin_manager(), named, options, logprobs=logprobs)
    built = named.build()
    if not isinstance(built, ScoringTeacher):
        raise UsageError(
            f"teacher {named.name!r} cannot score answers that are there already",
            "score with a local model, transformers:MODEL; or collect answers with --logprobs",
        )
    work = _Work(named, built, Path(out), logprobs)
    with Appender(out) as appender, Progress("scoring", None, "row", shown=progress) as bar:
        done = _read_done(Path(out), named.name)
        read = (reader or make_reader(manager=manager)).transcripts(data, work.refused)
        pending = work.pending(itertools.islice(read, limit), done)
        while window := list(itertools.islice(pending, _WINDOW * built.batch_size)):
            for transcript in work.score(window):
                appender.append_line(sealed(transcript_to_dict(transcript)))
                bar.advance()
    return work.summary(time.perf_counter() - began)


def _read_done(out: Path, teacher: str) -> IdSet:
    done = IdSet()
    for source, row in read_rows(out):
        metadata = row.get("metadata")
        by = metadata.get(MARK) if isinstance(metadata, dict) else None
        if by != teacher:
            raise UsageError(f"{source}: the row was scored by {by!r}, not by {teacher!r}", "choose another --out")
        done.add(str(row.get("id")))
    return done


class _Work:
    """What a scoring has done so far.

    Args:
        named: the teacher, as the user named it.
        teacher: the same, built.
        out: the file.
        logprobs: how many likeliest tokens per place.
    """

    def __init__(self, named: NamedTeacher, teacher: ScoringTeacher, out: Path, logprobs: int):
        self._named, self._teacher, self._out, self._logprobs = named, teacher, out, logprobs
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def refused(self, error: DistillError) -> None:
        """Count a row that is not one to learn from."""
        self._counts["failed"] += 1
        self._reasons[error.message] += 1

    def pending(self, rows: Iterator[Transcript], done: IdSet) -> Iterator[Transcript]:
        """The rows to score; counts the others."""
        seen = IdSet()
        for transcript in rows:
            if not seen.add(transcript.id):
                self._counts["duplicates"] += 1
            elif transcript.id in done:
                self._counts["cached"] += 1
            else:
                yield transcript

    def score(self, transcripts: Sequence[Transcript]) -> Iterator[Transcript]:
        """Score all answers of some rows; yields the rows of which one was scored, with their log probabilities."""
        asked: list[tuple[int, int]] = []
        requests: list[Request] = []
        for n, transcript in enumerate(transcripts):
            for turn, message in enumerate(transcript.messages):
                if message.role == "assistant" and (message.content or message.tool_calls):
                    asked.append((n, turn))
                    requests.append(Request(tuple(transcript.messages[: turn + 1]), transcript.tools))
        scored = dict(zip(asked, self._ask(requests), strict=True))
        for n, transcript in enumerate(transcripts):
            turns = [turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"]
            found = [scored.get((n, turn)) for turn in turns]
            if row := self._row(transcript, found):
                yield row

    def _ask(self, requests: Sequence[Request]) -> list[Mapping[str, Any] | DistillError]:
        owner = self._named.owner
        found: list[Mapping[str, Any] | DistillError] = []
        ordered = sorted(range(len(requests)), key=lambda n: -sum(len(m.content or "") for m in requests[n].messages))
        for start in range(0, len(ordered), self._teacher.batch_size):
            batch = [requests[n] for n in ordered[start : start + self._teacher.batch_size]]
            try:
                answers = list(self._teacher.score_batch(batch, self._logprobs))
            except DistillError:
                raise
            except Exception as error:
                raise PluginError(f"{owner} failed in score_batch(): {one_line(error)}") from error
            if len(answers) != len(batch):
                raise PluginError(f"{owner}: {len(batch)} answers to score, score_batch returned {len(answers)}")
            for answer in answers:
                if isinstance(answer, Exception) and not isinstance(answer, DistillError):
                    found.append(PluginError(f"{owner} failed: {one_line(answer)}"))
                else:
                    found.append(answer)
        placed = dict(zip(ordered, found, strict=True))
        return [placed[n] for n in range(len(requests))]

    def _row(
        self, transcript: Transcript, found: Sequence[Mapping[str, Any] | DistillError | None]
    ) -> Transcript | None:
        told = [None if isinstance(one, DistillError) else one for one in found]
        if not any(told):
            errors = [one.message for one in found if isinstance(one, DistillError)]
            self._counts["failed"] += 1
            self._reasons[errors[0] if errors else "there is no answer"] += 1
            return None
        self._counts["rows"] += 1
        self._counts["answers"] += sum(one is not None for one in told)
        self._counts["tokens"] += sum(len(one["tokens"]) for one in told if one is not None)
        metadata = {**transcript.metadata, MARK: self._named.name, "logprobs": told}
        return replace(transcript, metadata=metadata)

    def summary(self, seconds: float) -> ScoreSummary:
        """The counts."""
        if not self._counts.total():
            raise DataError("there is nothing to score: the data is empty", "give transcripts")
        return ScoreSummary(
            out=str(self._out),
            seconds=round(seconds, 3),
            reasons=dict(self._reasons.most_common()),
            **{name: self._counts[name] for name in ("rows", "answers", "tokens", "cached", "failed", "duplicates")},
        )
