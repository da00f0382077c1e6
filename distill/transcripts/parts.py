"""Contents that are lists of parts, as in the APIs of OpenAI and Anthropic: text, thinking, calls and results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from distill.errors import DataError, RefusedRow

TEXT_PARTS = ("text", "input_text", "output_text", "summary_text")
THINKING_PARTS = ("thinking", "reasoning", "thought", "thoughts", "reasoning_text")
_HIDDEN_PARTS = ("redacted_thinking",)
_CALL_PARTS = ("tool_use", "server_tool_use")
_TEXT_KEYS = ("text", "thinking", "reasoning", "summary", "content")


class Parts(NamedTuple):
    """What a list of parts holds: the text of the message, its thinking, the text of a refusal; None for none."""

    text: str | None
    thinking: str | None
    refusal: str | None


def read_parts(content: list[Any], where: str) -> Parts:
    """Join the parts of a message's content.

    Raises:
        RefusedRow: there are images, audio or other parts that are not text.
    """
    found: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    for part in content:
        kind, text = _part(part, where)
        if kind is not None:
            found[kind].append(text)
    joined = {kind: "".join(texts) if texts else None for kind, texts in found.items()}
    return Parts(joined["text"], joined["thinking"], joined["refusal"])


def _part(part: Any, where: str) -> tuple[str | None, str]:
    """A part's kind, as `Parts` names it, and its text; None for a part without a readable text."""
    if isinstance(part, str):
        return "text", part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in TEXT_PARTS or (kind is None and isinstance(part, Mapping) and isinstance(part.get("text"), str)):
        text = part.get("text")
        if text is not None and not isinstance(text, str):
            raise DataError(f"{where} has a part whose text is {type(text).__name__}")
        return "text", text or ""
    if kind in THINKING_PARTS:
        return "thinking", text_in(part) or ""
    if kind == "refusal":
        return "refusal", str(part.get("refusal") or "")
    if kind in _HIDDEN_PARTS:
        return None, ""
    raise RefusedRow(f"{where} has parts that are not text ({kind or 'no type'})", "distill trains on text only")


def text_in(value: Any) -> str | None:
    """The text in reasoning of any shape: text, a part, a list of parts or of summaries; None where there is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, Mapping):
        return next((text for key in _TEXT_KEYS if (text := text_in(value.get(key)))), None)
    if isinstance(value, (list, tuple)):
        return "".join(text_in(part) or "" for part in value) or None
    return None


def split_calls(message: Any) -> Iterator[Any]:
    """Turn a message with tool calls or tool results among its parts into messages of their own.

    Anthropic's messages hold `tool_use` and `tool_result` parts. The calls become `tool_calls` of the assistant's
    message, each result a message of the tool, in the order of the parts. Any other message stays as it is.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not any(_is_call(part) or _is_result(part) for part in content):
        yield message
        return
    parts: list[Any] = []
    calls: list[dict[str, Any]] = []
    for part in content:
        if _is_result(part):
            if parts or calls:
                yield _with_calls(message, parts, calls)
                parts, calls = [], []
            yield _result(part)
        elif _is_call(part):
            calls.append(call_of(part.get("name"), part.get("input"), part.get("id")))
        else:
            parts.append(part)
    if parts or calls:
        yield _with_calls(message, parts, calls)


def call_of(name: Any, arguments: Any, call_id: Any) -> dict[str, Any]:
    """A tool call in OpenAI's shape; its arguments are a string of JSON."""
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    call: dict[str, Any] = {"type": "function", "function": {"name": str(name or ""), "arguments": arguments}}
    return {"id": str(call_id), **call} if call_id else call


def _is_call(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in _CALL_PARTS


def _is_result(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("type")).endswith("tool_result")


def _with_calls(message: Mapping[str, Any], parts: list[Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    rest = {key: value for key, value in message.items() if key != "content"}
    return {**rest, "content": parts or None, **({"tool_calls": calls} if calls else {})}


def _result(part: Mapping[str, Any]) -> dict[str, Any]:
    content = part.get("content")
    message: dict[str, Any] = {"role": "tool", "content": "" if content is None else content}
    if part.get("tool_use_id"):
        message["tool_call_id"] = str(part["tool_use_id"])
    return message
