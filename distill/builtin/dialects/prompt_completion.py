"""Prompt and completion: two texts, or two lists of messages as TRL has them. Only completions are trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distill import DataError, DialectSpec, Message, Transcript, message_to_dict
from distill.builtin.dialects.base import Row, list_of, second_of, with_id, with_system

_COMPLETIONS = ("completion", "response")
_COLUMNS = ("id", "prompt", *_COMPLETIONS, "tools", "functions", "system", "metadata")


def _matches(row: Row) -> bool:
    return "prompt" in row and any(key in row for key in _COMPLETIONS)


def _read(row: Row, where: str) -> dict[str, Any]:
    key = next((key for key in _COMPLETIONS if row.get(key) is not None), None)
    if key is None:
        raise DataError(f"{where}: no `completion`", "answers to prompts are what `distill collect` gets")
    prompt = [_context(message) for message in _messages(list_of(row, "prompt"), "user", f"{where}: `prompt`")]
    messages = prompt + _messages(list_of(row, key), "assistant", f"{where}: `completion`")
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": row.get("tools") or row.get("functions"),
        "metadata": second_of(row, _COMPLETIONS),
    }


def _messages(value: Any, role: str, where: str) -> list[Any]:
    """A text as a message of that role, or a list of messages."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is neither a text nor a list of messages")
    return value


def _context(message: Any) -> Any:
    """A message of the prompt: an answer in it is not trained."""
    if isinstance(message, dict) and message.get("role") == "assistant":
        return {**message, "train": False}
    return message


def _parts(transcript: Transcript) -> list[Transcript]:
    """One transcript per answer that counts, with everything before it as its prompt."""
    messages = transcript.messages
    answers = [index for index, message in enumerate(messages) if message.role == "assistant" and message.train]
    parts = []
    for index in answers:
        before = [replace(message, train=message.train and message.role != "assistant") for message in messages[:index]]
        parts.append(replace(transcript, messages=(*before, messages[index])))
    return parts or [transcript]


def _write(transcript: Transcript) -> dict[str, Any]:
    *before, last = transcript.messages
    if last.role != "assistant" or not last.train:
        raise DataError("prompt and completion have no conversations without an answer that counts")
    if not before:
        raise DataError("prompt and completion have no answers without a prompt")
    prompt = [_message(message) for message in before]
    row = with_id(transcript, {"prompt": prompt, "completion": [_message(last)]})
    if transcript.tools:
        row["tools"] = [dict(tool) for tool in transcript.tools]
    return row


def _message(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = message_to_dict(message, without=("weight", "reasoning_details"))
    return row


PROMPT_COMPLETION = DialectSpec(
    "prompt-completion", "prompt, completion: texts or messages", _matches, _read, _COLUMNS, _write, _parts
)
