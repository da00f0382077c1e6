"""The file of transcripts: what is in it already, and the two files a run writes, rows and failed rows."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from distill.collection.budget import Price
from distill.collection.conversation import Conversation, add_usage
from distill.collection.plan import Plan
from distill.collection.prompts import prompt_to_dict
from distill.collection.row_id import IdSet
from distill.errors import DataError, DistillError, PluginError, UsageError, one_line
from distill.files.atomic import check_is_file, utc_now, whole_file
from distill.files.jsonl import Appender, dumps, parse_rows, read_rows
from distill.plugins import PluginManager
from distill.transcripts.checksum import sealed
from distill.transcripts.rows import message_to_dict, parse_transcript, transcript_to_dict
from distill.types import CollectRun, Source, Transcript

log = logging.getLogger("distill")

_FIRST_BYTES = b'{"id": "'
_REASONS = 100
"""Distinct reasons that are counted by their text."""


def failed_path(out: str | Path) -> Path:
    """The file beside `out` that holds its failed rows."""
    return Path(f"{out}.failed.jsonl")


def check_output(out: str | Path, prompts: Path | None) -> None:
    """Make sure that `out` is a file of transcripts, or does not exist yet, before anything touches it.

    Args:
        out: the file to write to.
        prompts: the prompt file, if the prompts come from one.

    Raises:
        UsageError: it is the prompt file.
        DataError: its first line is something else.
        DistillError: it cannot be a file, or the file of failed rows beside it cannot.
    """
    beside = failed_path(out)
    for path in (out, beside, beside.with_name(f".{beside.name}.tmp")):
        check_is_file(path)
    if not os.path.exists(out):
        return
    if prompts is not None and os.path.exists(prompts) and os.path.samefile(out, prompts):
        raise UsageError(f"--out {out} is the prompt file", "give another file to write to")
    try:
        with open(out, "rb") as file:
            line = file.readline(1 << 26)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror}", "give a file to write to") from None
    if line.endswith(b"\n"):
        ours = _is_transcript(line)
    else:  # a kill may have cut the first row short
        ours = line.startswith(_FIRST_BYTES[: len(line)]) or _is_transcript(line)
    if not ours:
        raise DataError(f"{out}:1: not a transcript; the file was left as it is", "give another --out FILE")


def _is_transcript(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and isinstance(row.get("messages"), list)


def whole_rows(out: str | Path) -> Iterator[tuple[Source, dict[str, Any]]]:
    """As `read_rows`, without a last row that was cut short; nothing where there is no file."""
    if os.path.exists(out):
        with open(out, "rb") as file:
            yield from parse_rows((line for line in file if line.endswith(b"\n")), str(out))


def read_done(rows: Iterable[tuple[Source, dict[str, Any]]], plan: Plan) -> IdSet:
    """The ids of the rows that are in a file.

    Args:
        rows: of the file, as `read_rows` or `whole_rows` gives them.
        plan: what is going to be asked, and of whom; with its setting `append`, rows by others are welcome.

    Raises:
        DataError: a row is no transcript.
        UsageError: a row is by another teacher, or was made with other parameters; names the first difference.
    """
    done, part = IdSet(), plan.settings.part
    for source, row in rows:
        transcript = parse_transcript(row, source)
        if part is None or part.owns(transcript.id):
            done.add(transcript.id)
        if not plan.settings.append:
            difference = _difference(transcript.metadata, plan)
            if difference:
                raise UsageError(
                    f"{source}: {difference}", "use another --out FILE, or --append to mix them in one file"
                )
    return done


def _difference(metadata: Mapping[str, Any], plan: Plan) -> str | None:
    """How a row's teacher or parameters differ from what is asked for now; a prompt's own parameters do not count."""
    theirs, ours = metadata.get("teacher"), plan.teacher.name
    if theirs != ours:
        return f"the row is by teacher {theirs!r}, not {ours!r}" if theirs else "the row does not say its teacher"
    before = metadata.get("params") or {}
    own = metadata.get("prompt_params") or ()
    for key in sorted({*before, *plan.sent}):
        if key not in own and before.get(key) != plan.sent.get(key):
            return f"the row was made with {key}={_shown(before, key)}, not {key}={_shown(plan.sent, key)}"
    return None


def _shown(params: Mapping[str, Any], key: str) -> str:
    return json.dumps(params[key]) if key in params else "default"


@dataclass
class Counters:
    """Counts of one run.

    Attributes:
        rows: transcripts written.
        failed: rows set apart.
        cut: transcripts whose last answer ran into the token limit.
        usage: token counts of all answers, added up.
        reasons: why rows failed.
    """

    rows: int = 0
    failed: int = 0
    cut: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def fail(self, reason: str) -> None:
        """Count a failed row; beyond 100 different reasons they are no longer told apart."""
        known = reason in self.reasons or len(self.reasons) < _REASONS
        self.failed += 1
        self.reasons[reason if known else "other reasons"] += 1


class Output:
    """Writes a run's rows, and counts them.

    Args:
        appender: of the transcripts' file.
        plan: what is asked, and of whom.
        manager: whose observers are notified.
        tick: called at each row's end.
        earlier: other files whose rows are not asked for again.
        price: the teacher's, if it is known.

    Raises:
        UsageError: the file has rows by another teacher or with other parameters, and the settings do not say
            `append`.
        DataError: it has a malformed row.

    Attributes:
        run: what observers are told.
        owner: the teacher's plugin, as errors name it.
        done: the ids of the rows that were in the transcripts' file.
        counts: of this run.
        spent_earlier: dollars for the teacher's rows that were there, the failed ones included, as far as their token
            counts tell.
    """

    def __init__(
        self,
        appender: Appender,
        plan: Plan,
        manager: PluginManager,
        tick: Callable[[], None],
        earlier: Sequence[Path] = (),
        price: Price | None = None,
    ):
        if appender.quarantined:
            log.warning("%s: its last row was cut short; moved to %s.quarantine", appender.path, appender.path)
        self._appender, self._plan, self._manager, self._tick = appender, plan, manager, tick
        self.run = CollectRun(appender.path, plan.teacher.name)
        self.owner = plan.teacher.owner
        self.spent_earlier = 0.0
        self.done = read_done(self._priced(chain(read_rows(appender.path), *map(whole_rows, earlier)), price), plan)
        self.counts = Counters()
        self._failures: Appender | None = None
        self._failed_before, self._repaired = IdSet(), IdSet()
        with suppress(DataError):  # none yet, or somebody edited it: `close` tells
            for _, row in self._priced(read_rows(failed_path(self.run.out)), price):
                self._failed_before.add(str(row.get("id")))

    def _priced(
        self, rows: Iterable[tuple[Source, dict[str, Any]]], price: Price | None
    ) -> Iterator[tuple[Source, dict[str, Any]]]:
        """The rows; adds up what those of this teacher have cost while they pass."""
        for source, row in rows:
            about = row["metadata"] if isinstance(row.get("metadata"), dict) else row
            usage = about.get("usage")
            if price is not None and isinstance(usage, dict) and about.get("teacher") == self.run.teacher:
                self.spent_earlier += price.of(usage) or 0.0
            yield source, row

    def save(self, conversation: Conversation) -> None:
        """Write a finished conversation, and tell the observers.

        Raises:
            DistillError: the file cannot be written.
        """
        transcript = Transcript(
            conversation.id, tuple(conversation.messages), conversation.prompt.tools, self._metadata(conversation)
        )
        try:
            line = sealed(transcript_to_dict(transcript))
        except (TypeError, ValueError, RecursionError) as error:
            self.fail(conversation, PluginError(f"{self.owner} gave an answer that is no JSON: {one_line(error)}"))
            return
        self._appender.append_line(line)
        if conversation.id in self._failed_before:
            self._repaired.add(conversation.id)
        counts = self.counts
        counts.rows += 1
        counts.cut += conversation.cut
        counts.usage = add_usage(counts.usage, conversation.usage)
        self._tick()
        self._manager.notify("transcript_collected", transcript=transcript, run=self.run)

    def _metadata(self, conversation: Conversation) -> dict[str, Any]:
        prompt = conversation.prompt
        metadata: dict[str, Any] = {
            "teacher": self.run.teacher,
            "model": conversation.model,
            "finish_reason": conversation.finish_reason,
            "usage": conversation.usage,
            "created": utc_now(),
            "params": self._plan.sent_with(prompt),
            "sample": conversation.sample,
        }
        if prompt.source is not None:
            metadata["source"] = {"file": prompt.source.file, "line": prompt.source.line}
        if prompt.id is not None:
            metadata["prompt_id"] = prompt.id
        if prompt.metadata:
            metadata["prompt_metadata"] = dict(prompt.metadata)
        if prompt.params:
            metadata["prompt_params"] = sorted(prompt.params)
        if prompt.teacher_messages:
            metadata["teacher_messages"] = [message_to_dict(message) for message in prompt.teacher_messages]
        if conversation.turns_left:
            metadata["turns_left"] = conversation.turns_left
        if any(logprobs is not None for logprobs in conversation.logprobs):
            metadata["logprobs"] = list(conversation.logprobs)
        return metadata

    def fail(self, conversation: Conversation, error: DistillError) -> None:
        """Write a row that has no transcript, with its error, to the file of failed rows."""
        self.counts.fail(error.message)
        self.counts.usage = add_usage(self.counts.usage, conversation.usage)
        source = conversation.prompt.source
        row = {
            "id": conversation.id,
            "error": error.message,
            "prompt": prompt_to_dict(conversation.prompt),
            "source": {"file": source.file, "line": source.line} if source else None,
            "sample": conversation.sample,
            "teacher": self.run.teacher,
            "params": self._plan.sent_with(conversation.prompt),
            "created": utc_now(),
            "finish_reason": conversation.finish_reason,
            "usage": conversation.usage,
            "answers": [message_to_dict(message) for message in conversation.answers],
        }
        if self._failures is None:
            self._failures = Appender(failed_path(self.run.out))
        self._failures.append(_writable(row))
        self._tick()

    def close(self) -> None:
        """Rewrite the file of failed rows: the latest failure of each row, without the rows that are done."""
        if self._failures is not None:
            self._failures.close()
        path = failed_path(self.run.out)
        if not path.exists():
            return
        try:
            _rewrite(path, self.done, self._repaired)
        except DataError as error:  # somebody edited it: the transcripts are safe, and so is what it holds
            log.warning("%s; the file of failed rows is left as it is", error.message)


def _rewrite(path: Path, *done: IdSet) -> None:
    latest = {row.get("id"): source.line for source, row in read_rows(path)}
    keep = {line for id, line in latest.items() if not any(str(id) in ids for ids in done)}
    if not keep:
        path.unlink()
        return
    with whole_file(path) as file:
        for source, row in read_rows(path):
            if source.line in keep:
                file.write(dumps(row) + "\n")


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    """The row, without the answers of a plugin where they are no JSON."""
    try:
        dumps(row).encode()
    except (TypeError, ValueError, RecursionError):
        return {**row, "answers": [], "finish_reason": None, "usage": {}}
    return row
