"""Prompt and completion: two texts, or two lists of messages as TRL has them. Only completions are trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distill.errors import DataError
from distill.transcripts.dialects.base import (
    Dialect,
    Row,
    columns,
    refuse_preferences,
    tools_of,
    unread_columns,
    unread_fields,
    with_system,
)
from distill.transcripts.dialects.messages import FIELDS, plain_message
from distill.transcripts.rows import message_to_dict
from distill.types import Message, Transcript

_COMPLETIONS = ("completion", "response")
_KNOWN = ("id", "prompt", *_COMPLETIONS, "tools", "functions", "system", "metadata")


def _completion(row: Row) -> Any:
    return next((row[key] for key in _COMPLETIONS if row.get(key) is not None), None)


def _matches(row: Row) -> bool:
    return "prompt" in row and any(key in row for key in _COMPLETIONS)


def _read(row: Row, where: str) -> dict[str, Any]:
    refuse_preferences(row, where, marks=("kto_tag", "label"))
    if _completion(row) is None:
        raise DataError(f"{where}: no `completion`", "answers to prompts are what `distill collect` gets")
    prompt = _messages(row.get("prompt"), "user", f"{where}: `prompt`")
    for message in prompt:
        if isinstance(message, dict) and message.get("role") == "assistant":
            message["train"] = False
    messages = prompt + _messages(_completion(row), "assistant", f"{where}: `completion`")
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": tools_of(row, where),
        "metadata": columns(row, _KNOWN),
    }


def _messages(value: Any, role: str, where: str) -> list[Any]:
    """A text as a message of that role, or a list of messages."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is neither a text nor a list of messages")
    return [plain_message(message, f"{where}, message {n}") for n, message in enumerate(value)]


def _unread(row: Row) -> set[str]:
    fields = unread_fields(row.get("prompt"), FIELDS) | unread_fields(_completion(row), FIELDS)
    both = {f"column `{_COMPLETIONS[1]}`"} if all(row.get(key) for key in _COMPLETIONS) else set()
    return unread_columns(row, _KNOWN) | fields | both


def _split(transcript: Transcript) -> list[Transcript]:
    """A transcript an answer that counts, with all that was said before it as its prompt."""
    messages = transcript.messages
    answers = [turn for turn, message in enumerate(messages) if message.role == "assistant" and message.train]
    parts = []
    for turn in answers:
        before = [replace(message, train=message.train and message.role != "assistant") for message in messages[:turn]]
        parts.append(replace(transcript, messages=(*before, messages[turn])))
    return parts or [transcript]


def _write(transcript: Transcript) -> dict[str, Any]:
    *before, last = transcript.messages
    if last.role != "assistant" or not last.train:
        raise DataError("prompt and completion have no conversations without an answer that counts")
    if not before:
        raise DataError("prompt and completion have no answers without a prompt")
    row: dict[str, Any] = {"prompt": [_message(message) for message in before], "completion": [_message(last)]}
    if transcript.id != str(transcript.source):
        row = {"id": transcript.id, **row}
    if transcript.tools:
        row["tools"] = [dict(tool) for tool in transcript.tools]
    return row


def _message(message: Message) -> dict[str, Any]:
    row = message_to_dict(message)
    row.pop("weight", None)
    return row


PROMPT_COMPLETION = Dialect(
    "prompt-completion", "prompt, completion: texts or messages", _matches, _read, _unread, _write, _split
)
