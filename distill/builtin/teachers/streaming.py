"""Server-sent events: a streamed answer put together again, in the shape in which the API sends whole ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_PART_TEXTS = ("text", "summary", "data")


def events(body: bytes) -> Iterator[tuple[str | None, Any]]:
    """The events of a stream: the name, where there is one, and the JSON of its data; None for data that is no JSON."""
    name: str | None = None
    data: list[str] = []
    text = body.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    for line in [*text.split("\n"), ""]:
        if not line:
            if data:
                yield name, _loads("\n".join(data))
            name, data = None, []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            name = line[6:].strip()


def _loads(text: str) -> Any:
    if text.strip() == "[DONE]":
        return "[DONE]"
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def is_stream(content_type: str, body: bytes) -> bool:
    """Whether a response is an event stream: by its type, or by how it starts."""
    start = body[:64].lstrip()
    return content_type == "text/event-stream" or start.startswith((b"data:", b"event:", b":", b"id:", b"retry:"))


def joined_chat(body: bytes) -> dict[str, Any] | None:
    """A streamed chat completion as a whole one; None where the stream broke off before its end.

    An event with an error is given as it is.
    """
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    ended = False
    for _, event in events(body):
        if event == "[DONE]":
            ended = True
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            return event
        whole |= {key: value for key, value in event.items() if key != "choices" and value is not None}
        choices = event.get("choices")
        first = _first(choices) if isinstance(choices, list) else {}
        if first.get("finish_reason"):
            ended = True
        _add_choice(choice, message, calls, first)
    if not ended or not (message or calls or choice):
        return None
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return whole | {"choices": [choice | {"message": {"role": "assistant"} | message}]}


def _first(choices: list[Any]) -> dict[str, Any]:
    """The piece of the first choice in an event; empty where there is none."""
    return next((one for one in choices if isinstance(one, dict) and not one.get("index")), {})


def _add_choice(
    choice: dict[str, Any], message: dict[str, Any], calls: dict[int, dict[str, Any]], event: Mapping[str, Any]
) -> None:
    """Add an event's choice to what came before it; a `message` is no piece, but all of it once more."""
    whole, delta = event.get("message"), event.get("delta")
    if isinstance(whole, dict):
        message.update({key: value for key, value in whole.items() if value and key != "tool_calls"})
    for key, value in (delta if isinstance(delta, dict) else {}).items():
        if key == "tool_calls" and isinstance(value, list):
            for call in value:
                _add_call(calls, call)
        else:
            _append(message, key, value)
    for key, value in event.items():
        if key == "logprobs" and isinstance(value, dict):
            content = choice.setdefault("logprobs", {}).setdefault("content", [])
            content += value.get("content") or ()
        elif key not in ("delta", "message") and value is not None:
            choice[key] = value


def _append(message: dict[str, Any], key: str, value: Any) -> None:
    before = message.get(key)
    if value is None:
        return
    if isinstance(before, str) and isinstance(value, str) and key != "role":
        message[key] = before + value
    elif key == "reasoning_details" and isinstance(value, list):
        message[key] = _joined_parts([*(before or ()), *value])
    elif isinstance(before, list) and isinstance(value, list):
        message[key] = [*before, *value]
    else:
        message[key] = value


def _joined_parts(parts: list[Any]) -> list[Any]:
    """Pieces of reasoning with their texts put together: those in a row of the same type and index are one part."""
    joined: list[Any] = []
    for part in parts:
        last = joined[-1] if joined else None
        if not isinstance(part, dict) or not isinstance(last, dict) or not _continues(part, last):
            joined.append(part)
            continue
        texts = {key: last[key] + part[key] for key in _PART_TEXTS if _are_texts(last.get(key), part.get(key))}
        joined[-1] = last | {key: value for key, value in part.items() if value is not None} | texts
    return joined


def _continues(part: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    return "index" in part and all(part.get(key) == last.get(key) for key in ("index", "type"))


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _add_call(calls: dict[int, dict[str, Any]], delta: Any) -> None:
    """Add a piece of a tool call; its index tells which one it belongs to."""
    if not isinstance(delta, dict):
        return
    index = delta.get("index")
    index = index if isinstance(index, int) else len(calls)
    call = calls.setdefault(index, {"type": "function", "function": {"name": "", "arguments": ""}})
    for key, value in delta.items():
        if key not in ("index", "function") and value:  # Gemini's signatures are beside the function
            call[key] = value
    function = delta.get("function")
    for key in ("name", "arguments"):
        piece = function.get(key) if isinstance(function, dict) else None
        if isinstance(piece, str):
            call["function"][key] += piece


def joined_message(body: bytes) -> dict[str, Any] | None:
    """A streamed message of Anthropic's API as a whole one; None where the stream broke off before its end."""
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    ended = False
    for name, event in events(body):
        if not isinstance(event, dict):
            continue
        kind = event.get("type") or name
        if kind == "error" or event.get("error"):
            return event
        if kind == "message_start" and isinstance(event.get("message"), dict):
            whole |= event["message"]
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[event.get("index", len(blocks))] = dict(event["content_block"])
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            _add_block(blocks.setdefault(event.get("index", 0), {"type": "text"}), event["delta"])
        elif kind == "message_delta":
            whole |= {key: value for key, value in (event.get("delta") or {}).items() if value is not None}
            whole["usage"] = {**(whole.get("usage") or {}), **(event.get("usage") or {})}
        ended = ended or kind == "message_stop" or bool(whole.get("stop_reason"))
    if not ended:
        return None
    for block in blocks.values():
        if isinstance(block.get("input"), str):  # of a tool call: it comes in pieces of JSON
            block["input"] = _loads(block["input"]) or {}
    return whole | {"content": [blocks[index] for index in sorted(blocks)]}


def _add_block(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for key, target in (
        ("text", "text"),
        ("thinking", "thinking"),
        ("partial_json", "input"),
        ("signature", "signature"),
    ):
        piece = delta.get(key)
        if isinstance(piece, str):
            before = block.get(target)
            block[target] = (before if isinstance(before, str) else "") + piece
