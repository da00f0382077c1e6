"""The prompt that only the teacher saw, as a transcript's metadata record it."""

from __future__ import annotations

from distill.errors import DataError
from distill.transcripts.rows import parse_message
from distill.types import Message, Transcript


def teacher_messages_of(transcript: Transcript) -> tuple[Message, ...]:
    """The messages before the conversation that the teacher saw and the student does not; empty where there are none.

    Raises:
        DataError: they are no list of messages.
    """
    hidden = transcript.metadata.get("teacher_messages") or []
    where = f"{transcript.source or transcript.id}: `teacher_messages` of the metadata"
    if not isinstance(hidden, list):
        raise DataError(f"{where} is not a list of messages")
    return tuple(parse_message(message, f"{where}: message {n}") for n, message in enumerate(hidden))
