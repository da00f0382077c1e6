"""ShareGPT: `conversations` of `from` and `value`, with the tools of LLaMA-Factory and the marks of axolotl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distill.errors import DataError
from distill.transcripts.dialects.base import (
    SPEAKERS,
    Dialect,
    Row,
    columns,
    from_json,
    has_speakers,
    refuse_preferences,
    tools_of,
    unread_columns,
    unread_fields,
    with_system,
)
from distill.transcripts.dialects.messages import FIELDS, plain_message
from distill.types import Message, Transcript

_KEYS = ("conversations", "conversation", "messages")
_KNOWN = ("id", "tools", "functions", "system", "metadata", *_KEYS)


def _turns(row: Row) -> Any:
    return next((row[key] for key in _KEYS if row.get(key) is not None), None)


def _matches(row: Row) -> bool:
    return "conversations" in row or "conversation" in row or has_speakers(row.get("messages"))


def _read(row: Row, where: str) -> dict[str, Any]:
    refuse_preferences(row, where)
    turns = _turns(row)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: no list of `conversations`", 'ShareGPT is {"conversations": [{"from", "value"}, …]}')
    messages: list[dict[str, Any]] = []
    for n, turn in enumerate(turns):
        message, call = _read_turn(turn, f"{where}: turn {n}")
        before = messages[-1] if messages else {}
        if call and before.get("role") == "assistant" and not before.get("tool_calls"):
            before["tool_calls"] = message["tool_calls"]  # one message: a text, and the calls after it
        else:
            messages.append(message)
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": tools_of(row, where),
        "metadata": columns(row, _KNOWN),
    }


def _read_turn(turn: Any, where: str) -> tuple[dict[str, Any], bool]:
    """One turn as a message, and whether it is calls only."""
    if not isinstance(turn, dict):
        raise DataError(f"{where} is not an object", 'a turn is {"from": "human" or "gpt", "value": "…"}')
    speaker = turn.get("from", turn.get("role"))
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{where} is by the unknown speaker {speaker!r}", f"known are {', '.join(SPEAKERS)}")
    value = turn.get("value", turn.get("content"))
    message = {key: item for key, item in turn.items() if key not in ("from", "value", "content")}
    if role == "call":
        calls = from_json(value, where) if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) else [calls]
        message.update(role="assistant", content=None, tool_calls=[_read_call(call, where) for call in calls])
        return message, True
    message.update(role=role, content=value)
    return plain_message(message, where), False


def _read_call(call: Any, where: str) -> dict[str, Any]:
    """LLaMA-Factory's `{"name", "arguments"}` as OpenAI's call, whose arguments are a string of JSON."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise DataError(f'{where}: a call is not {{"name", "arguments"}}')
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {**call, "arguments": arguments}}


def _unread(row: Row) -> set[str]:
    return unread_columns(row, _KNOWN) | unread_fields(_turns(row), (*FIELDS, "from", "value"))


def _write(transcript: Transcript) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for message in transcript.messages:
        turns += _write_turns(message)
    row: dict[str, Any] = {"conversations": turns}
    if transcript.id != str(transcript.source):
        row = {"id": transcript.id, **row}
    if transcript.tools:
        row["tools"] = json.dumps([_bare(tool) for tool in transcript.tools], ensure_ascii=False)
    return row


def _write_turns(message: Message) -> list[dict[str, Any]]:
    if message.tool_calls and message.role != "assistant":
        raise DataError(f"ShareGPT has no tool calls by {message.role}")
    turns = []
    if message.content or (message.content is not None and not message.tool_calls):
        speaker = {"user": "human", "assistant": "gpt", "tool": "observation"}.get(message.role, message.role)
        turns.append({"from": speaker, "value": message.content})
    if message.tool_calls:
        calls = [_write_call(call) for call in message.tool_calls]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        turns.append({"from": "function_call", "value": value})
    if not turns:
        raise DataError("ShareGPT has no messages without text (a refusal)")
    return turns if message.train else [{**turn, "train": False} for turn in turns]


def _write_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError("ShareGPT has no tool calls without the name of a function")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # broken, as models write them at times: it stays a string
            arguments = json.loads(arguments)
    return {"name": function["name"], "arguments": arguments}


def _bare(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool out of its envelope, where that holds nothing else."""
    bare = set(tool) == {"type", "function"} and tool["type"] == "function" and isinstance(tool["function"], dict)
    return tool["function"] if bare else tool


SHAREGPT = Dialect("sharegpt", "conversations: from, value", _matches, _read, _unread, _write)
