"""Recorded answers: a transcripts file as teacher, for tests, for changed formats and for prices already paid."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill import Answer, Message, NoOptions, Request, TeacherError, Transcript, UsageError, read_transcripts


class ReplayTeacher:
    """Gives the recorded answer to the same conversation.

    A conversation is the same when its messages, but for the system message, are equal; of several recorded ones
    those with the same system message are taken. Several answers to one conversation are given in turn, by sample.

    Args:
        file: transcripts.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, file: str):
        self._file = file
        self._answers: dict[bytes, list[tuple[str | None, Answer]]] = defaultdict(list)
        recorded = sorted(read_transcripts(file), key=lambda transcript: transcript.metadata.get("sample") or 0)
        for transcript in recorded:
            for key, answer in _answers(transcript):
                self._answers[key].append((_system(transcript.messages), answer))

    async def ask(self, request: Request) -> Answer:
        """Look the answer up.

        Raises:
            TeacherError: there is none.
        """
        found = self._answers.get(_key(request.messages))
        if not found:
            raise TeacherError(f"{self._file} holds no answer to this conversation")
        system = _system(request.messages)
        same = [answer for theirs, answer in found if theirs == system] or [answer for _, answer in found]
        sample: int = request.metadata.get("sample", 0)
        return same[sample % len(same)]


def _answers(transcript: Transcript) -> Iterator[tuple[bytes, Answer]]:
    """Each assistant message of a transcript, with the key of the conversation before it."""
    metadata, last = transcript.metadata, len(transcript.messages) - 1
    hidden = metadata.get("teacher_messages")
    examples = [_plain(message) for message in hidden] if isinstance(hidden, list) else []
    for n, message in enumerate(transcript.messages):
        if message.role != "assistant" or n == 0:
            continue
        finish = metadata.get("finish_reason", "stop") if n == last else "stop"
        usage = metadata.get("usage") or {} if n == last else {}
        yield _key([*examples, *transcript.messages[:n]]), Answer(message, finish, usage, metadata.get("model"))


def _plain(message: Mapping[str, Any]) -> Message:
    """A message that only the teacher saw, as far as `_key` looks at it."""
    return Message(message["role"], message.get("content"))


def _key(messages: Sequence[Message]) -> bytes:
    said = [(message.role, message.content) for message in messages if message.role != "system"]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def _system(messages: Sequence[Message]) -> str | None:
    return next((message.content for message in messages if message.role == "system"), None)


def build(options: NoOptions, model: str | None) -> ReplayTeacher:
    """Build the teacher.

    Raises:
        UsageError: no file is named.
        DataError: the file cannot be read.
    """
    if not model:
        raise UsageError("teacher 'replay' needs a file of transcripts", "write --teacher replay:FILE")
    return ReplayTeacher(model)
