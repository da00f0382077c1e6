"""ShareGPT: `conversations` of `from` and `value`, with the tools of LLaMA-Factory and the marks of axolotl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distill import DataError, DialectSpec, Message, Transcript
from distill.builtin.dialects.base import SPEAKERS, Row, from_json, has_speakers, list_of, with_id, with_system

_KEYS = ("conversations", "conversation", "messages")
_COLUMNS = ("id", "tools", "functions", "system", "metadata", *_KEYS)


def _matches(row: Row) -> bool:
    if "messages" in row:
        return has_speakers(list_of(row, "messages"))
    return "conversations" in row or "conversation" in row


def _read(row: Row, where: str) -> dict[str, Any]:
    key = next((key for key in _KEYS if row.get(key) is not None), "conversations")
    items = list_of(row, key)
    if not isinstance(items, list) or not items:
        raise DataError(f"{where}: no list of `conversations`", 'ShareGPT is {"conversations": [{"from", "value"}, …]}')
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        message, is_call = _read_item(item, f"{where}: turn {number}")
        before = messages[-1] if messages else {}
        if is_call and before.get("role") == "assistant" and not before.get("tool_calls"):
            before["tool_calls"] = message["tool_calls"]  # one message: a text, and the calls after it
        else:
            messages.append(message)
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": row.get("tools") or row.get("functions"),
    }


def _read_item(item: Any, where: str) -> tuple[dict[str, Any], bool]:
    """One item as a message, and whether it is tool calls only."""
    if not isinstance(item, dict):
        raise DataError(f"{where} is not an object", 'a turn is {"from": "human" or "gpt", "value": "…"}')
    speaker = item.get("from", item.get("role"))
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{where} is by the unknown speaker {speaker!r}", f"known are {', '.join(SPEAKERS)}")
    value = item.get("value", item.get("content"))
    message = {key: one for key, one in item.items() if key not in ("from", "value", "content")}
    if role == "call":
        calls = from_json(value, where) if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) else [calls]
        message.update(role="assistant", content=None, tool_calls=[_read_call(call, where) for call in calls])
        return message, True
    message.update(role=role, content=value)
    return message, False


def _read_call(call: Any, where: str) -> dict[str, Any]:
    """LLaMA-Factory's `{"name", "arguments"}` as OpenAI's call, whose arguments are a string of JSON."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise DataError(f'{where}: a call is not {{"name", "arguments"}}')
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {**call, "arguments": arguments}}


def _write(transcript: Transcript) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for message in transcript.messages:
        items += _write_items(message)
    row = with_id(transcript, {"conversations": items})
    if transcript.tools:
        row["tools"] = json.dumps([_bare(tool) for tool in transcript.tools], ensure_ascii=False)
    return row


def _write_items(message: Message) -> list[dict[str, Any]]:
    if message.tool_calls and message.role != "assistant":
        raise DataError(f"ShareGPT has no tool calls by {message.role}")
    items: list[dict[str, Any]] = []
    if message.content or (message.content is not None and not message.tool_calls):
        speaker = {"user": "human", "assistant": "gpt", "tool": "observation"}.get(message.role, message.role)
        items.append({"from": speaker, "value": message.content})
    if message.tool_calls:
        calls = [_write_call(call) for call in message.tool_calls]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        items.append({"from": "function_call", "value": value})
    if not items:
        raise DataError("ShareGPT has no messages without text (a refusal)")
    return items if message.train else [{**item, "train": False} for item in items]


def _write_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError("ShareGPT has no tool calls without the name of a function")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # models write broken JSON at times: it stays a string
            arguments = json.loads(arguments)
    return {"name": function["name"], "arguments": arguments}


def _bare(tool: Mapping[str, Any]) -> Any:
    """A tool out of its envelope, where that holds nothing else."""
    bare = set(tool) == {"type", "function"} and tool["type"] == "function" and isinstance(tool["function"], dict)
    return tool["function"] if bare else tool


SHAREGPT = DialectSpec("sharegpt", "conversations: from, value", _matches, _read, _COLUMNS, _write)
