"""Rows with `messages`: distill's own (canonical), and OpenAI's fine-tuning format. Both are read alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill.errors import DataError
from distill.transcripts.dialects.base import (
    Dialect,
    Row,
    columns,
    has_speakers,
    tools_of,
    unread_columns,
    unread_fields,
    with_system,
)
from distill.transcripts.rows import message_to_dict, transcript_to_dict
from distill.types import Transcript

_KNOWN = ("id", "messages", "tools", "functions", "system", "metadata")
_REASONING = ("reasoning", "thinking")  # other servers' and templates' names of `reasoning_content`
FIELDS = (
    *("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name", "refusal", "weight", "train"),
    *("function_call", *_REASONING),
)
_ROLES = {"developer": "system", "function": "tool"}


def plain_message(message: Any, where: str) -> Any:
    """Rewrite what OpenAI's API says, or used to say, otherwise than a canonical message.

    Raises:
        DataError: it is marked in a way that cannot be honoured.
    """
    if not isinstance(message, dict):
        return message  # parse_message says what is wrong
    if message.get("training_detail") or message.get("train_detail"):
        raise DataError(
            f"{where} marks single characters to train", "a message can only be trained as a whole, or not (`train`)"
        )
    plain = dict(message)
    role = message.get("role")
    plain["role"] = _ROLES.get(role, role) if isinstance(role, str) else role
    call = message.get("function_call")
    if isinstance(call, dict) and not message.get("tool_calls"):
        plain["tool_calls"] = [{"type": "function", "function": call}]
    for key in _REASONING:
        if isinstance(message.get(key), str) and plain.get("reasoning_content") is None:
            plain["reasoning_content"] = message[key]
    return plain


def _matches(row: Row) -> bool:
    return "messages" in row and not has_speakers(row["messages"])


def _read(row: Row, where: str) -> dict[str, Any]:
    messages = row.get("messages")
    if not isinstance(messages, list):
        return dict(row)  # parse_transcript says what is wrong
    plain = [plain_message(message, f"{where}: message {n}") for n, message in enumerate(messages)]
    return {
        "id": row.get("id"),
        "messages": with_system(row, plain, where) if plain else plain,
        "tools": tools_of(row, where),
        "metadata": columns(row, _KNOWN),
    }


def _unread(row: Row) -> set[str]:
    return unread_columns(row, _KNOWN) | unread_fields(row.get("messages"), FIELDS)


def _write_canonical(transcript: Transcript) -> dict[str, Any]:
    row = transcript_to_dict(transcript)
    if transcript.id == str(transcript.source):  # the row had none
        del row["id"]
    return row


def _write_openai(transcript: Transcript) -> dict[str, Any]:
    """Only the keys of the API: it refuses files with others."""
    messages = []
    for message in transcript.messages:
        row = message_to_dict(message)
        row.pop("reasoning_content", None)
        if message.role != "assistant":
            row.pop("weight", None)
        if message.tool_calls:
            row["tool_calls"] = [_call(call) for call in message.tool_calls]
        messages.append(row)
    row = {"messages": messages}
    if transcript.tools:
        row["tools"] = [dict(tool) for tool in transcript.tools]
    if isinstance(parallel := transcript.metadata.get("parallel_tool_calls"), bool):
        row["parallel_tool_calls"] = parallel
    return row


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call whose arguments are a string of JSON, as the API has them."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return dict(call)
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


CANONICAL = Dialect("canonical", "distill's own: messages, tools, metadata", _matches, _read, _unread, _write_canonical)
OPENAI = Dialect("openai", "OpenAI's fine-tuning format: messages, tools", _matches, _read, _unread, _write_openai)
