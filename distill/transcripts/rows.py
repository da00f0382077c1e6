"""Transcripts as JSON rows: the canonical shape, which the readers of OpenAI, TRL and axolotl accept as it is.

`distill.transcripts.dialects` reads this and other data formats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from distill.errors import DataError
from distill.files.text import check_text
from distill.types import ROLES, Message, Role, Source, Transcript


def parse_transcript(row: Mapping[str, Any], source: Source) -> Transcript:
    """Check a row and make a Transcript of it.

    Raises:
        DataError: it has no list of `messages`, or one of them is malformed.
    """
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{source}: no list of `messages`", 'a transcript is {"messages": [{"role", "content"}, …]}')
    metadata, tools = row.get("metadata") or {}, row.get("tools") or []
    if not isinstance(metadata, dict):
        raise DataError(f"{source}: `metadata` is not an object")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{source}: `tools` is not a list of objects")
    _check_json(tools, f"{source}: `tools`")
    name = str(row.get("id") or source)
    check_text(name, f"{source}: `id`")
    return Transcript(
        id=name,
        messages=tuple(parse_message(message, f"{source}: message {n}") for n, message in enumerate(messages)),
        tools=tuple(tools),
        metadata=metadata,
        source=source,
    )


def parse_message(row: Any, where: str) -> Message:
    """Check a message and make a Message of it.

    Args:
        row: as JSON gives it.
        where: starts the errors.

    Raises:
        DataError: it is not an object, its role is unknown, or its content is not text.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where} is not an object")
    role = row.get("role")
    if role not in ROLES:
        raise DataError(f"{where} has the unknown role {role!r}", f"the roles are {', '.join(ROLES)}")
    calls = row.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
        raise DataError(f"{where}: `tool_calls` is not a list of objects")
    _check_json(calls, f"{where}: `tool_calls`")
    content = _text(row.get("content"), f"{where}: `content`")
    refusal = _text(row.get("refusal"), f"{where}: `refusal`")
    if content is None and not calls and refusal is None:
        raise DataError(f"{where} has no `content`")
    return Message(
        role=cast("Role", role),
        content=content,
        reasoning_content=_text(row.get("reasoning_content"), f"{where}: `reasoning_content`"),
        tool_calls=tuple(calls),
        tool_call_id=_text(row.get("tool_call_id"), f"{where}: `tool_call_id`"),
        name=_text(row.get("name"), f"{where}: `name`"),
        refusal=refusal,
        train=_is_trained(row, where),
    )


def _is_trained(row: Mapping[str, Any], where: str) -> bool:
    """Whether a message counts in the loss, by OpenAI's `weight` and axolotl's `train`."""
    for key in ("weight", "train"):
        mark = row.get(key)
        if mark is not None and (not isinstance(mark, (bool, int, float)) or mark not in (0, 1)):
            raise DataError(f"{where}: `{key}` is {mark!r}", "a message counts in the loss (1, true) or not (0, false)")
    return row.get("weight") not in (0, False) and row.get("train") not in (0, False)


def _text(value: Any, where: str) -> str | None:
    """A string, or OpenAI's list of text parts joined; None stays None."""
    if isinstance(value, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
            raise DataError(f"{where} has parts that are not text", "distill trains on text only")
        value = "".join(str(part.get("text", "")) for part in value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{where} is {type(value).__name__}, not text")
    check_text(value, where)
    return value


def _check_json(value: Any, where: str) -> None:
    """Tools and calls become text in a template."""
    if value:
        check_text(json.dumps(value, ensure_ascii=False), where)


def message_to_dict(message: Message) -> dict[str, Any]:
    """Write a message as JSON: always `role` and `content`, the other fields where they are set."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    for key in ("reasoning_content", "tool_call_id", "name", "refusal"):
        value = getattr(message, key)
        if value is not None:
            row[key] = value
    if message.tool_calls:
        row["tool_calls"] = [dict(call) for call in message.tool_calls]
    if not message.train:
        row["weight"] = 0
    return row


def transcript_to_dict(transcript: Transcript) -> dict[str, Any]:
    """Write a transcript as its JSONL row, without `source`: the place of a row is not part of it."""
    return {
        "id": transcript.id,
        "messages": [message_to_dict(message) for message in transcript.messages],
        "tools": [dict(tool) for tool in transcript.tools],
        "metadata": dict(transcript.metadata),
    }
