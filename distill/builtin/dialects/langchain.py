"""LangChain's messages: as dicts (`type`, `data`), as `model_dump` gives them, or serialized constructors (`lc`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill import DataError, DialectSpec, Source
from distill.builtin.dialects.base import Row, first_message, is_langchain, list_of, with_system

_COLUMNS = ("id", "messages", "tools", "functions", "system", "metadata")
_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}


def _matches(row: Row) -> bool:
    return is_langchain(first_message(list_of(row, "messages")))


def _read(row: Row, where: str) -> dict[str, Any]:
    items = list_of(row, "messages")
    messages, finish = _messages(items, where)
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": row.get("tools") or row.get("functions"),
        "metadata": {"finish_reason": finish} if finish else {},
    }


def _messages(items: list[Any], where: str) -> tuple[list[dict[str, Any]], str | None]:
    """The messages, and the finish reason of the last answer."""
    messages: list[dict[str, Any]] = []
    finish = None
    for number, item in enumerate(items):
        kind, data = _unwrapped(item, f"{where}: message {number}")
        messages.append(_message(kind, data))
        about = data.get("response_metadata")
        if kind == "ai" and isinstance(about, Mapping):
            finish = about.get("finish_reason") or about.get("stop_reason") or about.get("done_reason")
    return messages, finish if isinstance(finish, str) else None


def _unwrapped(item: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    """A message's type, and its fields."""
    if not isinstance(item, Mapping) or not is_langchain(item):
        raise DataError(f"{where} is no message of LangChain")
    data: Any = item
    kind = str(item.get("type"))
    if "kwargs" in item:  # {"lc": 1, "id": […, "HumanMessage"], "kwargs": {…}}
        data, path = item["kwargs"], item.get("id")
        kind = str(path[-1]) if isinstance(path, list) and path else ""
    elif isinstance(item.get("data"), Mapping):
        data = item["data"]
    kind = kind.removesuffix("Chunk").removesuffix("Message").lower()
    if kind == "chat":
        kind = {"user": "human", "assistant": "ai"}.get(str(data.get("role")), str(data.get("role")))
    if kind not in _ROLES:
        raise DataError(f"{where} is of the unknown type {kind!r}", f"known are {', '.join(_ROLES)}")
    return kind, data


def _message(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    more = data.get("additional_kwargs")
    more = more if isinstance(more, Mapping) else {}
    message: dict[str, Any] = {"role": _ROLES[kind], "content": data.get("content")}
    for key in ("name", "tool_call_id"):
        if data.get(key):
            message[key] = data[key]
    for key in ("reasoning_content", "reasoning", "refusal"):
        if more.get(key):
            message[key] = more[key]
    calls = [_call(call) for call in [*(data.get("tool_calls") or ()), *(data.get("invalid_tool_calls") or ())]]
    if not calls:
        calls = list(more.get("tool_calls") or ())
    if calls:
        message["tool_calls"] = calls
        if isinstance(message["content"], list):  # Anthropic's parts repeat the calls
            message["content"] = [part for part in message["content"] if _is_no_call(part)]
        message["content"] = message["content"] or None
    elif more.get("function_call"):
        message["function_call"] = more["function_call"]
        message["content"] = message["content"] or None
    return message


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call.get("args")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    made = {"type": "function", "function": {"name": call.get("name"), "arguments": arguments}}
    return {"id": call["id"], **made} if call.get("id") else made


def _is_no_call(part: Any) -> bool:
    return not isinstance(part, Mapping) or part.get("type") not in ("tool_use", "function_call", "input_json_delta")


def _join(rows: Iterable[tuple[Source, dict[str, Any]]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    """A file of messages is one conversation."""
    read = list(rows)
    source = read[0][0]
    messages, finish = _messages([row for _, row in read], str(source))
    yield source, {"messages": messages, "metadata": {"finish_reason": finish} if finish else {}}


LANGCHAIN = DialectSpec(
    "langchain",
    "LangChain's messages: type, data or content",
    _matches,
    _read,
    _COLUMNS,
    is_part=is_langchain,
    join=_join,
)
