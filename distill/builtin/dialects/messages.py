"""Rows with `messages`: distill's own (canonical), and OpenAI's fine-tuning format. Both are read alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from distill import DataError, DialectSpec, Message, Transcript, message_to_dict, transcript_to_dict
from distill.builtin.dialects.base import (
    Row,
    first_message,
    has_speakers,
    is_item,
    is_langchain,
    list_of,
    with_system,
)

_COLUMNS = ("id", "messages", "tools", "functions", "system", "metadata")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _matches(row: Row) -> bool:
    if "messages" not in row:
        return False
    messages = list_of(row, "messages")
    if not isinstance(messages, list):
        return True  # malformed: the reader names what is wrong
    others = any(isinstance(one, Mapping) and is_item(one) for one in messages)
    return not has_speakers(messages) and not is_langchain(first_message(messages)) and not others


def _read(row: Row, where: str) -> dict[str, Any]:
    messages = list_of(row, "messages")
    if isinstance(messages, list) and messages:
        messages = with_system(row, messages, where)
    return {"id": row.get("id"), "messages": messages, "tools": row.get("tools") or row.get("functions")}


def _write_canonical(transcript: Transcript) -> dict[str, Any]:
    row: dict[str, Any] = transcript_to_dict(transcript)
    if transcript.id == str(transcript.source):  # the row had none
        del row["id"]
    return row


def _write_openai(transcript: Transcript) -> dict[str, Any]:
    """A row that OpenAI's validation accepts: the API's keys only, an answer at the end, calls with their results."""
    messages = list(transcript.messages)
    while messages and messages[-1].role != "assistant":
        messages.pop()  # nothing answers it
    if not any(message.role == "assistant" and message.train for message in messages):
        raise DataError("OpenAI's format has no conversations without an answer that counts")
    if any(_is_empty(message) for message in messages):
        raise DataError("OpenAI's format has no empty answers")
    row: dict[str, Any] = {"messages": _with_results([_message(message, n) for n, message in enumerate(messages)])}
    if transcript.tools:
        row["tools"] = [dict(tool) for tool in transcript.tools]
    if isinstance(parallel := transcript.metadata.get("parallel_tool_calls"), bool):
        row["parallel_tool_calls"] = parallel
    return row


def _is_empty(message: Message) -> bool:
    """Whether a message is an answer that says nothing."""
    said = message.content or message.tool_calls or message.refusal
    return message.role == "assistant" and not said


def _message(message: Message, index: int) -> dict[str, Any]:
    unknown = ("reasoning_content", "reasoning_details", *([] if message.role == "assistant" else ["weight"]))
    row: dict[str, Any] = message_to_dict(message, without=unknown)
    if message.name is not None and (message.role == "tool" or not _NAME.fullmatch(message.name)):
        row.pop("name")
    if message.tool_calls:
        row["tool_calls"] = [_call(call, f"call_{index}_{n}") for n, call in enumerate(message.tool_calls)]
    return row


def _call(call: Mapping[str, Any], call_id: str) -> dict[str, Any]:
    """A tool call with an id, whose arguments are a string of JSON."""
    function = call.get("function")
    if not isinstance(function, dict) or not function.get("name") or not isinstance(function["name"], str):
        raise DataError("OpenAI's format has no tool calls without the name of a function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    own = call.get("id")
    return {
        "id": own if isinstance(own, str) and own else call_id,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _with_results(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order the API asks for: a call's results follow it at once, each names its call, none is missing."""
    open_calls: list[str] = []
    for row in rows:
        if row["role"] == "tool":
            call_id = row.get("tool_call_id") or (open_calls[0] if open_calls else None)
            if call_id not in open_calls:
                raise DataError("OpenAI's format has no tool results without their call")
            row["tool_call_id"] = call_id
            open_calls.remove(call_id)
            continue
        if open_calls:
            raise DataError("OpenAI's format has no tool calls without their results")
        open_calls = [call["id"] for call in row.get("tool_calls", ())]
    return rows


CANONICAL = DialectSpec(
    "canonical", "distill's own: messages, tools, metadata", _matches, _read, _COLUMNS, _write_canonical
)
OPENAI = DialectSpec(  # its rows are detected as canonical ones
    "openai", "OpenAI's fine-tuning format: messages, tools", lambda row: False, _read, _COLUMNS, _write_openai
)
