"""The file of transcripts: what is in it already, and the two files a run writes, rows and failed rows."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.collection.conversation import Conversation, add_usage
from distill.collection.prompts import prompt_to_dict
from distill.collection.row_id import IdSet
from distill.errors import DataError, DistillError, PluginError, UsageError, one_line
from distill.files.atomic import utc_now, whole_file
from distill.files.jsonl import Appender, dumps, parse_rows, read_rows
from distill.plugins import PluginManager
from distill.transcripts.rows import message_to_dict, parse_transcript, transcript_to_dict
from distill.types import CollectRun, Source, Transcript

log = logging.getLogger("distill")

_FIRST_BYTES = b'{"id": "'
HOPELESS = 20
"""So many rows that fail before one is written are worth a warning while there is still money to save."""
_REASONS = 100  # distinct ones that are counted by their text


def failed_path(out: str | Path) -> Path:
    """The file beside `out` that holds its failed rows."""
    return Path(f"{out}.failed.jsonl")


def check_output(out: str | Path, prompts: str | Path) -> None:
    """Make sure that `out` is a file of transcripts, or none yet, before anything touches it.

    Raises:
        UsageError: it is the prompt file.
        DataError: its first line is something else.
    """
    if not os.path.exists(out):
        return
    if os.path.exists(prompts) and os.path.samefile(out, prompts):
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


def read_done(
    rows: Iterable[tuple[Source, dict[str, Any]]], teacher: str, params: Mapping[str, Any], append: bool
) -> IdSet:
    """The ids of the rows that are in a file.

    Args:
        rows: of the file, as `read_rows` or `whole_rows` gives them.
        teacher: who is going to answer.
        params: how; as `all_params` gives them.
        append: whether rows by others are welcome.

    Raises:
        DataError: a row is no transcript.
        UsageError: a row is by another teacher, or was made with other parameters; names the first difference.
    """
    done = IdSet()
    for source, row in rows:
        transcript = parse_transcript(row, source)
        done.add(transcript.id)
        if not append:
            difference = _difference(transcript.metadata, teacher, params)
            if difference:
                raise UsageError(
                    f"{source}: {difference}", "use another --out FILE, or --append to mix them in one file"
                )
    return done


def _difference(metadata: Mapping[str, Any], teacher: str, params: Mapping[str, Any]) -> str | None:
    theirs = metadata.get("teacher")
    if theirs != teacher:
        return f"the row is by teacher {theirs!r}, not {teacher!r}" if theirs else "the row does not say its teacher"
    before = metadata.get("params") or {}
    for key in sorted({*before, *params}):
        if before.get(key) != params.get(key):
            return f"the row was made with {key}={_shown(before, key)}, not {key}={_shown(params, key)}"
    return None


def _shown(params: Mapping[str, Any], key: str) -> str:
    return json.dumps(params[key]) if key in params else "default"


@dataclass
class Output:
    """Writes a run's rows, and counts them.

    Attributes:
        appender: of the transcripts' file.
        run: what observers are told.
        params: what goes into each row's `metadata.params`.
        manager: whose observers are notified.
        owner: the teacher's plugin, as errors name it.
        done: the ids of the rows that were in the transcripts' file.
        tick: called at each row's end.
        rows, failed, cut, usage: counts of this run.
        reasons: why rows failed.
    """

    appender: Appender
    run: CollectRun
    params: Mapping[str, Any]
    manager: PluginManager
    owner: str
    done: IdSet
    tick: Callable[[], None]
    rows: int = 0
    failed: int = 0
    cut: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    _failures: Appender | None = None
    _failed_before: IdSet = field(default_factory=IdSet)
    _mended: IdSet = field(default_factory=IdSet)

    def __post_init__(self) -> None:
        with suppress(DataError):  # none yet, or somebody edited it: `close` tells
            for _, row in read_rows(failed_path(self.run.out)):
                self._failed_before.add(str(row.get("id")))

    def save(self, conversation: Conversation) -> None:
        """Write a finished conversation, and tell the observers.

        Raises:
            DistillError: the file cannot be written.
        """
        transcript = Transcript(
            conversation.id, tuple(conversation.messages), conversation.prompt.tools, self._metadata(conversation)
        )
        try:
            line = dumps(transcript_to_dict(transcript)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            self.fail(conversation, PluginError(f"{self.owner} gave an answer that is no JSON: {one_line(error)}"))
            return
        self.appender.append_line(line)
        if conversation.id in self._failed_before:
            self._mended.add(conversation.id)
        self.rows += 1
        self.cut += conversation.cut
        self.usage = add_usage(self.usage, conversation.usage)
        self.tick()
        self.manager.notify("transcript_collected", transcript=transcript, run=self.run)

    def _metadata(self, conversation: Conversation) -> dict[str, Any]:
        prompt = conversation.prompt
        metadata = {
            "teacher": self.run.teacher,
            "model": conversation.model,
            "finish_reason": conversation.finish_reason,
            "usage": conversation.usage,
            "created": utc_now(),
            "params": dict(self.params),
            "sample": conversation.sample,
        }
        if prompt.source is not None:
            metadata["source"] = {"file": prompt.source.file, "line": prompt.source.line}
        if prompt.id is not None:
            metadata["prompt_id"] = prompt.id
        if prompt.metadata:
            metadata["prompt_metadata"] = dict(prompt.metadata)
        if conversation.turns_left:
            metadata["turns_left"] = conversation.turns_left
        if any(logprobs is not None for logprobs in conversation.logprobs):
            metadata["logprobs"] = conversation.logprobs
        return metadata

    def fail(self, conversation: Conversation, error: DistillError) -> None:
        """Write a row that has no transcript, with its error, to the file of failed rows."""
        reason = error.message if error.message in self.reasons or len(self.reasons) < _REASONS else "other reasons"
        self.failed += 1
        self.reasons[reason] += 1
        self.usage = add_usage(self.usage, conversation.usage)
        source = conversation.prompt.source
        row = {
            "id": conversation.id,
            "error": error.message,
            "prompt": prompt_to_dict(conversation.prompt),
            "source": {"file": source.file, "line": source.line} if source else None,
            "sample": conversation.sample,
            "teacher": self.run.teacher,
            "params": dict(self.params),
            "created": utc_now(),
            "finish_reason": conversation.finish_reason,
            "answers": [message_to_dict(message) for message in conversation.answers],
        }
        if self.rows == 0 and self.failed == HOPELESS:
            log.warning("the first %d rows all failed, the last of them so: %s", HOPELESS, error.message)
        if self._failures is None:
            self._failures = Appender(failed_path(self.run.out))
        self._failures.append(_writable(row))
        self.tick()

    def close(self) -> None:
        """Rewrite the file of failed rows: the latest failure of each row, without the rows that are done."""
        if self._failures is not None:
            self._failures.close()
        path = failed_path(self.run.out)
        if not path.exists():
            return
        try:
            _rewrite(path, self.done, self._mended)
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
        return {**row, "answers": [], "finish_reason": None}
    return row
