"""Transcripts as JSON rows: the canonical shape, which the readers of OpenAI, TRL and axolotl accept as it is.

`distill.transcripts.reader` reads this and other data formats.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

from distill.errors import DataError, RefusedRow
from distill.files.text import check_text
from distill.transcripts.parts import Parts, read_parts, split_calls
from distill.transcripts.reasoning import REASONING_FIELDS, reasoning_in
from distill.types import ROLES, Message, Role, Source, Transcript

_ROLES = {"developer": "system", "function": "tool"}  # OpenAI's new name, and its old one
_MEDIA = frozenset(("image", "images", "image_url", "audio", "audios", "video", "videos"))

MESSAGE_FIELDS = (
    *("role", "content", "tool_calls", "tool_call_id", "name", "refusal", "weight", "train", "function_call"),
    *REASONING_FIELDS,
)
"""Fields of a message that are read."""


def parse_transcript(row: Mapping[str, Any], source: Source) -> Transcript:
    """Check a row and make a Transcript of it.

    Raises:
        DataError: it has no list of `messages`, or one of them is malformed.
        RefusedRow: there are images, audio or other content that is not text.
    """
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{source}: no list of `messages`", 'a transcript is {"messages": [{"role", "content"}, …]}')
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise DataError(f"{source}: `metadata` is not an object")
    name = str(row.get("id") or source)
    check_text(name, f"{source}: `id`")
    parsed = [
        parse_message(part, f"{source}: message {n}")
        for n, message in enumerate(messages)
        for part in split_calls(message)
    ]
    return Transcript(
        id=name,
        messages=tuple(parsed),
        tools=parse_tools(row, str(source)),
        metadata=metadata,
        source=source,
    )


def parse_tools(row: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """A row's tool definitions: `tools` or `functions`, a list or JSON in a string; bare functions get their envelope.

    Raises:
        DataError: they are something else; starts with `where`.
    """
    tools = row.get("tools") or row.get("functions") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise DataError(f"{where}: `tools` is a string, but not of JSON") from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{where}: `tools` is not a list of objects")
    _check_json(tools, f"{where}: `tools`")
    return tuple(
        {"type": "function", "function": tool} if "name" in tool and not {"function", "type"} & set(tool) else tool
        for tool in tools
    )


def parse_message(row: Any, where: str) -> Message:
    """Check a message and make a Message of it.

    What the APIs of OpenAI and others write differently is understood: the roles `developer` and `function`, a
    `function_call`, contents in parts, a tool's null content, reasoning under other names.

    Args:
        row: as JSON gives it.
        where: starts the errors.

    Raises:
        DataError: it is not an object, its role is unknown, or its content is missing.
        RefusedRow: its content is not text.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where} is not an object")
    role = row.get("role")
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise DataError(f"{where} has the unknown role {row.get('role')!r}", f"the roles are {', '.join(ROLES)}")
    _refuse_marks(row, where)
    calls = _calls(row, where)
    parts = _parts(row.get("content"), f"{where}: `content`")
    content = "" if parts.text is None and role == "tool" else parts.text
    refusal = parts.refusal if row.get("refusal") is None else _text(row["refusal"], f"{where}: `refusal`")
    if content is None and not calls and refusal is None:
        raise DataError(f"{where} has no `content`")
    reasoning = row["reasoning_content"] if row.get("reasoning_content") is not None else reasoning_in(row)
    if reasoning is None:
        reasoning = parts.thinking
    return Message(
        role=cast("Role", role),
        content=content,
        reasoning_content=_text(reasoning, f"{where}: `reasoning_content`"),
        tool_calls=calls,
        tool_call_id=_text(row.get("tool_call_id"), f"{where}: `tool_call_id`"),
        name=_text(row.get("name"), f"{where}: `name`"),
        refusal=refusal,
        train=_is_trained(row, where),
        reasoning_details=_details(row, where) if role == "assistant" else (),
    )


def _calls(row: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    calls = row.get("tool_calls") or ()
    if not calls and isinstance(row.get("function_call"), dict):
        calls = [{"type": "function", "function": row["function_call"]}]
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
        raise DataError(f"{where}: `tool_calls` is not a list of objects")
    _check_json(calls, f"{where}: `tool_calls`")
    return tuple(calls)


def _details(row: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """The reasoning in a server's own parts; what is no list of parts is read as text alone."""
    details = row.get("reasoning_details")
    if not isinstance(details, list) or not all(isinstance(part, dict) for part in details):
        return ()
    _check_json(details, f"{where}: `reasoning_details`")
    return tuple(details)


def _refuse_marks(row: Mapping[str, Any], where: str) -> None:
    """Refuse fields that change what a message is.

    Raises:
        DataError: single characters are marked to be trained.
        RefusedRow: it comes with images, audio or video.
    """
    if row.get("training_detail") or row.get("train_detail"):
        raise DataError(
            f"{where} marks single characters to train", "a message can only be trained as a whole, or not (`train`)"
        )
    for key in _MEDIA.intersection(row):
        if row[key]:
            raise RefusedRow(f"{where} has `{key}`", "distill trains on text only: leave such rows out")


def _is_trained(row: Mapping[str, Any], where: str) -> bool:
    """Whether a message counts in the loss, by OpenAI's `weight` and axolotl's `train`."""
    for key in ("weight", "train"):
        mark = row.get(key)
        if mark is not None and (not isinstance(mark, (bool, int, float)) or mark not in (0, 1)):
            raise DataError(f"{where}: `{key}` is {mark!r}", "a message counts in the loss (1, true) or not (0, false)")
    return row.get("weight") not in (0, False) and row.get("train") not in (0, False)


def _parts(value: Any, where: str) -> Parts:
    """A content: text, or a list of parts."""
    if isinstance(value, list):
        parts = read_parts(value, where)
        for text in parts:
            check_text(text or "", where)
        return parts
    return Parts(_text(value, where), None, None)


def _text(value: Any, where: str) -> str | None:
    """A string, or None.

    Raises:
        DataError: it is something else, or no valid Unicode.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{where} is {type(value).__name__}, not text")
    check_text(value, where)
    return value


def _check_json(value: Any, where: str) -> None:
    """Tools and calls become text in a template; all of it is written to files."""
    if value:
        check_text(json.dumps(value, ensure_ascii=False), where)


def message_to_dict(message: Message, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Write a message as JSON: always `role` and `content`, the other fields where they are set.

    Args:
        message: what is written.
        without: fields that are left out, since who reads the row does not know them.
    """
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    for key in ("reasoning_content", "tool_call_id", "name", "refusal"):
        value = getattr(message, key)
        if value is not None:
            row[key] = value
    if message.reasoning_details:
        row["reasoning_details"] = [dict(part) for part in message.reasoning_details]
    if message.tool_calls:
        row["tool_calls"] = [dict(call) for call in message.tool_calls]
    if not message.train:
        row["weight"] = 0
    for key in without:
        row.pop(key, None)
    return row


def transcript_to_dict(transcript: Transcript) -> dict[str, Any]:
    """Write a transcript as its JSONL row, without `source`: the place of a row is not part of it."""
    return {
        "id": transcript.id,
        "messages": [message_to_dict(message) for message in transcript.messages],
        "tools": [dict(tool) for tool in transcript.tools],
        "metadata": dict(transcript.metadata),
    }
