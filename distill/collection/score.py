"""`score`: a teacher's log probabilities of answers that are there already."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.collection.asking import ask_all, raise_what_stopped
from distill.collection.budget import Meter
from distill.collection.conversation import as_teacher_sees
from distill.collection.plan import price_of
from distill.collection.row_id import IdSet
from distill.collection.settings import ScoreSettings
from distill.collection.teachers import NamedTeacher
from distill.errors import DataError, DistillError, UsageError
from distill.files.jsonl import Appender, read_rows
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import Progress
from distill.protocols import BatchTeacher, ScoringServer, ScoringTeacher, Teacher
from distill.transcripts.checksum import sealed
from distill.transcripts.reader import Reader, make_reader
from distill.transcripts.rows import transcript_to_dict
from distill.transcripts.sources import Data
from distill.transcripts.teacher_prompt import teacher_messages_of
from distill.types import Answer, Message, Params, Request, Transcript

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
        usd: dollars spent; None where no price is known.
        stopped: why it ended before its end: the budget.
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
    usd: float | None = None
    stopped: str | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)


def score(
    data: Data,
    out: str | Path,
    settings: ScoreSettings,
    manager: PluginManager | None = None,
    *,
    reader: Reader | None = None,
    progress: bool = False,
) -> ScoreSummary:
    """Add a teacher's log probabilities to transcripts, and write them to a file.

    Each row is on disk as soon as its answers are scored. Rows that are in the file are not scored again: calling this
    again resumes an interrupted scoring.

    Args:
        data: the transcripts.
        out: the file of scored transcripts, created or added to.
        settings: the teacher, and limits of rate and money.
        manager: the plugins; default: those that are installed.
        reader: reads the rows; None: their format is detected row by row.
        progress: whether to show how far it is.

    Raises:
        UsageError: this teacher cannot score, or the file has rows that another teacher scored.
        DataError: a row of the data, or of the file, is malformed.
        DistillError: the teacher failed for good; the rows until then are saved.
    """
    began = time.perf_counter()
    manager = manager or make_plugin_manager()
    teacher = settings.named_teacher(manager)
    meter = Meter(price_of(teacher, settings), settings.max_usd, answer_limit=1)
    built = _as_teacher(teacher, teacher.build(), settings.logprobs)
    with Appender(out) as appender, Progress("scoring", None, "row", shown=progress) as bar:
        output = _Output(appender, teacher.name, bar)
        done = _read_done(Path(out), teacher.name)
        read = (reader or make_reader(manager=manager)).transcripts(data, output.refused)
        jobs = output.jobs(itertools.islice(read, settings.limit), done)
        pool = ask_all(teacher, built, settings, jobs, output, meter, resumed=len(done) > 0)
    raise_what_stopped(pool, teacher.name, str(out), output.counts["rows"])
    return output.summary(meter, time.perf_counter() - began, stopped=None if pool.error is None else str(pool.error))


def _read_done(out: Path, teacher: str) -> IdSet:
    done = IdSet()
    for source, row in read_rows(out):
        metadata = row.get("metadata")
        by = metadata.get(MARK) if isinstance(metadata, dict) else None
        if by != teacher:
            raise UsageError(f"{source}: the row was scored by {by!r}, not by {teacher!r}", "choose another --out")
        done.add(str(row.get("id")))
    return done


class _Batches:
    """A `ScoringTeacher` as a teacher that is asked."""

    def __init__(self, teacher: ScoringTeacher, logprobs: int):
        self._teacher, self._logprobs, self.batch_size = teacher, logprobs, teacher.batch_size

    def ask_batch(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """Score the answers with which the requests end."""
        found: list[Answer | Exception] = []
        for request, told in zip(requests, self._teacher.score_batch(requests, self._logprobs), strict=True):
            found.append(told if isinstance(told, Exception) else Answer(request.messages[-1], logprobs=told))
        return found


class _Server:
    """A `ScoringServer` as a teacher that is asked."""

    def __init__(self, server: ScoringServer, logprobs: int):
        self._server, self._logprobs = server, logprobs

    async def ask(self, request: Request) -> Answer:
        """Score the answer with which the request ends."""
        return await self._server.score(request, self._logprobs)

    def close(self) -> Any:
        """Close the server's connections, in whichever way it does; see `Teacher`."""
        return self._server.close() if hasattr(self._server, "close") else None


def _as_teacher(named: NamedTeacher, built: Any, logprobs: int) -> Teacher | BatchTeacher:
    if isinstance(built, ScoringTeacher):
        return _Batches(built, logprobs)
    if isinstance(built, ScoringServer):
        return _Server(built, logprobs)
    raise UsageError(
        f"teacher {named.name!r} cannot score answers that are there already",
        "score with a local model, transformers:MODEL, or with vLLM, openai:MODEL; or collect answers with --logprobs",
    )


@dataclass(slots=True)
class _Row:
    """A transcript, what only the teacher saw before it, and what is known of its answers."""

    transcript: Transcript
    hidden: Sequence[Message] = ()
    waiting: int = 0
    told: dict[int, Any] = field(default_factory=dict)
    reason: str = "there is no answer"


class _Answer:
    """One answer to score; see `distill.collection.schedule.Job`."""

    def __init__(self, row: _Row, turn: int):
        self.row, self.turn, self.id = row, turn, row.transcript.id
        self.messages = list(as_teacher_sees(row.hidden, row.transcript.messages[: turn + 1]))
        self.answers: list[Message] = []
        self.attempts = self.moves = self.progress = 0
        self.probing = self.done = False

    def request(self) -> Request:
        """The conversation up to and with the answer."""
        return Request(tuple(self.messages), self.row.transcript.tools, Params(max_tokens=1))

    def take(self, answer: Answer) -> None:
        """Keep the log probabilities."""
        self.row.told[self.turn], self.done = answer.logprobs, True


class _Output:
    """Writes rows as soon as nothing of them is waited for, and counts what becomes of them.

    Args:
        appender: of the file of scored transcripts.
        teacher: the teacher's name.
        bar: shows how far it is.

    Attributes:
        counts: rows, answers and so on, as in `ScoreSummary`.
    """

    def __init__(self, appender: Appender, teacher: str, bar: Progress):
        self._appender, self._teacher, self._bar = appender, teacher, bar
        self.counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def jobs(self, rows: Iterator[Transcript], done: IdSet) -> Iterator[_Answer | None]:
        """The answers to score; None for a row that has none to score."""
        seen = IdSet()
        for transcript in rows:
            try:
                row = _Row(transcript, teacher_messages_of(transcript))
            except DataError as error:
                self.refused(error)
                yield None
                continue
            turns = [turn for turn, one in enumerate(transcript.messages) if one.role == "assistant"]
            turns = [turn for turn in turns if _says_something(transcript.messages[turn])]
            if not seen.add(transcript.id):
                self.counts["duplicates"] += 1
            elif transcript.id in done:
                self.counts["cached"] += 1
            elif not turns:
                self._end(row)
            else:
                row.waiting = len(turns)
                yield from (_Answer(row, turn) for turn in turns)
                continue
            yield None

    def refused(self, error: DistillError) -> None:
        """Count a row that is not one to learn from."""
        self._fail(error.message)

    def save(self, job: _Answer) -> None:
        """An answer was scored."""
        self._end_of(job)

    def fail(self, job: _Answer, error: DistillError) -> None:
        """An answer could not be scored."""
        job.row.reason = error.message
        self._end_of(job)

    def _end_of(self, job: _Answer) -> None:
        job.row.waiting -= 1
        if not job.row.waiting:
            self._end(job.row)

    def _end(self, row: _Row) -> None:
        """Write a row of which at least one answer was scored."""
        if not row.told:
            self._fail(row.reason)
            return
        turns = [turn for turn, message in enumerate(row.transcript.messages) if message.role == "assistant"]
        told = [row.told.get(turn) for turn in turns]
        metadata = {**row.transcript.metadata, MARK: self._teacher, "logprobs": told}
        self._appender.append_line(sealed(transcript_to_dict(replace(row.transcript, metadata=metadata))))
        self.counts["rows"] += 1
        self.counts["answers"] += len(row.told)
        self.counts["tokens"] += sum(len(one["tokens"]) for one in row.told.values())
        self._bar.advance()

    def _fail(self, reason: str) -> None:
        self.counts["failed"] += 1
        self._reasons[reason] += 1

    def summary(self, meter: Meter, seconds: float, stopped: str | None) -> ScoreSummary:
        """The counts."""
        if not self.counts.total() and stopped is None:
            raise DataError("there is nothing to score: the data is empty", "give transcripts")
        return ScoreSummary(
            out=str(self._appender.path),
            seconds=round(seconds, 3),
            usd=None if meter.usd is None else round(meter.usd, 6),
            stopped=stopped,
            reasons=dict(self._reasons.most_common()),
            **{name: self.counts[name] for name in ("rows", "answers", "tokens", "cached", "failed", "duplicates")},
        )


def _says_something(message: Message) -> bool:
    return bool(message.content or message.tool_calls)
