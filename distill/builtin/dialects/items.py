"""Items of OpenAI's Responses API, as the Agents SDK and Codex store them: messages, calls, results, reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill import DataError, DialectSpec, RefusedRow, Source
from distill.builtin.dialects.base import REFUSED, Row, is_item, is_langchain, list_of, with_system

_COLUMNS = ("id", "input", "output", "items", "messages", "instructions", "system", "tools", "metadata")
_CALLS = ("function_call", "custom_tool_call", "local_shell_call", "mcp_call", "computer_call", "tool_search_call")
_HOSTED = ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call")
_IGNORED = ("item_reference", "mcp_list_tools", "compaction", "ghost_snapshot", *_HOSTED)


def messages_of(items: Iterable[Any], where: str) -> list[dict[str, Any]]:
    """Turn items into messages: calls and reasoning belong to the assistant's message they come with.

    Raises:
        DataError: an item is of no known type.
    """
    messages: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for number, item in enumerate(items):
        place = f"{where}: item {number}"
        if not isinstance(item, Mapping):
            raise DataError(f"{place} is not an object")
        kind = item.get("type") or "message"
        if kind == "reasoning":
            thoughts += _thoughts(item)
        elif kind == "message":
            message = {key: item[key] for key in ("role", "content", "name") if item.get(key) is not None}
            _append(messages, message, thoughts)
        elif kind in _CALLS:
            _append_call(messages, _call(item), thoughts)
        elif kind.endswith("_output"):
            messages.append({"role": "tool", "tool_call_id": str(item.get("call_id") or ""), "content": _output(item)})
        elif kind not in _IGNORED:
            raise DataError(f"{place} is of the unknown type {kind!r}")
    return messages


def _append(messages: list[dict[str, Any]], message: dict[str, Any], thoughts: list[str]) -> None:
    if message.get("role") == "assistant" and thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
        thoughts.clear()
    messages.append(message)


def _append_call(messages: list[dict[str, Any]], call: dict[str, Any], thoughts: list[str]) -> None:
    """Add a call to the assistant's message before it, or as a message of its own."""
    if not thoughts and messages and messages[-1].get("role") == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        _append(messages, {"role": "assistant", "content": None, "tool_calls": [call]}, thoughts)


def _thoughts(item: Mapping[str, Any]) -> list[str]:
    parts = [*(item.get("summary") or []), *(item.get("content") or [])]
    return [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    arguments: Any = next((item[key] for key in ("arguments", "input", "action") if item.get(key) is not None), {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif item.get("type") == "custom_tool_call":  # its input is free text
        arguments = json.dumps({"input": arguments}, ensure_ascii=False)
    name = item.get("name") or str(item.get("type")).removesuffix("_call")
    call_id = item.get("call_id") or item.get("id") or ""
    return {"id": str(call_id), "type": "function", "function": {"name": name, "arguments": arguments}}


def _output(item: Mapping[str, Any]) -> Any:
    output = item.get("output")
    if isinstance(output, Mapping):  # Codex's {"content", "success"}
        output = output.get("content", json.dumps(output, ensure_ascii=False))
    return "" if output is None else output


def _matches(row: Row) -> bool:
    if "messages" in row:
        messages = list_of(row, "messages")
        return isinstance(messages, list) and any(isinstance(one, Mapping) and is_item(one) for one in messages)
    if "instruction" in row or "prompt" in row:
        return False
    if isinstance(list_of(row, "items"), list):
        return True
    asked, answered = list_of(row, "input"), list_of(row, "output")
    return isinstance(asked, list) or ("input" in row and isinstance(answered, list))


def _read(row: Row, where: str) -> dict[str, Any]:
    key = next((key for key in ("messages", "items") if row.get(key) is not None), None)
    items = _listed(row, key) if key else [*_listed(row, "input"), *_listed(row, "output", "assistant")]
    system = row.get("system") or row.get("instructions")
    messages = messages_of(items, where)
    return {"id": row.get("id"), "messages": with_system({"system": system}, messages, where), "tools": _tools(row)}


def _listed(row: Row, key: str, role: str = "user") -> list[Any]:
    """A column of items; a text is one message."""
    value = list_of(row, key)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return value if isinstance(value, list) else []


def _tools(row: Row) -> Any:
    """The API's flat definitions in their envelope; hosted tools have no definition."""
    tools = list_of(row, "tools") or []
    if not isinstance(tools, list):
        return tools
    flat = [tool for tool in tools if isinstance(tool, Mapping) and tool.get("type") == "function" and "name" in tool]
    definitions = [{key: value for key, value in tool.items() if key not in ("type", "strict")} for tool in flat]
    others = [tool for tool in tools if isinstance(tool, Mapping) and "function" in tool]
    return [*({"type": "function", "function": one} for one in definitions), *others]


def _is_part(row: Row) -> bool:
    """Whether a row is one item of a conversation, as `result.to_input_list()` is saved."""
    if is_langchain(row):
        return False
    has_content = "role" in row and "content" in row
    return "messages" not in row and (has_content or (isinstance(row.get("type"), str) and is_item(row)))


def _join(rows: Iterable[tuple[Source, dict[str, Any]]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    """One file, one conversation."""
    read = list(rows)
    source = read[0][0]
    yield source, {"messages": messages_of([row for _, row in read], str(source))}


OPENAI_AGENTS = DialectSpec(
    "openai-agents",
    "items of the Responses API and the Agents SDK: input, output",
    _matches,
    _read,
    _COLUMNS,
    is_part=_is_part,
    join=_join,
)


def _is_codex(row: Row) -> bool:
    if row.get("type") in ("session_meta", "response_item", "turn_context", "event_msg") and "payload" in row:
        return True
    return {"id", "timestamp", "instructions"} <= set(row) | {"instructions"} and "git" in row  # before 2025-09


def _join_codex(rows: Iterable[tuple[Source, dict[str, Any]]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    """A session of Codex: its items, without the events that repeat them for the screen.

    A compaction starts a new conversation, since the answers after it saw other messages than those before.
    """
    session = _Session()
    for source, row in rows:
        if row.get("type") == "compacted":
            yield from session.conversation()
            session.compact(source, _payload(row))
        else:
            session.add(source, row)
    yield from session.conversation()


def _payload(row: Row) -> dict[str, Any]:
    payload = row.get("payload")
    return payload if isinstance(payload, dict) else {}


class _Session:
    """The part of a session that is one conversation, as far as it was read."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._metadata: dict[str, Any] = {}
        self._first: Source | None = None
        self._id: Any = None
        self._part = 0
        self._refused: str | None = None
        self._answered = False

    def conversation(self) -> Iterator[tuple[Source, dict[str, Any]]]:
        """The canonical row; none where nothing was answered since the last compaction."""
        if self._first is None or (self._part and not self._answered):
            return
        name = f"{self._id}:{self._part + 1}" if self._id and self._part else self._id
        row: dict[str, Any] = {"id": name, "metadata": dict(self._metadata)}
        if self._refused is None:
            row["messages"] = messages_of(self._items, str(self._first))
        else:
            row[REFUSED] = self._refused
        yield self._first, row

    def compact(self, source: Source, payload: Row) -> None:
        """Start anew with what a compaction left of the messages, if the file tells it."""
        self._first, self._part, self._answered = source, self._part + 1, False
        left = payload.get("replacement_history")
        told = isinstance(left, list) and not any(_is_encrypted(item) for item in left)
        self._refused = None if told else "the answers after a compaction saw messages that the file does not hold"
        self._items = list(left) if isinstance(left, list) and told else []

    def add(self, source: Source, row: Row) -> None:
        """Add a line of the file."""
        self._first = self._first or source
        payload, kind = _payload(row), row.get("type")
        if kind == "session_meta" or "git" in row:
            self._add_about(payload or row)
        elif kind == "turn_context" and payload.get("model"):
            self._metadata["model"] = payload["model"]
        elif kind == "response_item":
            self._add_item(payload)
        elif kind in ("message", "reasoning", *_CALLS) or str(kind).endswith("_output"):  # before 2025-09
            self._add_item(row)

    def _add_about(self, about: Row) -> None:
        self._id = self._id or about.get("id")
        self._metadata.update({key: about[key] for key in ("cwd", "cli_version") if about.get(key)})
        instructions = about.get("base_instructions") or about.get("instructions")
        text = instructions.get("text") if isinstance(instructions, dict) else instructions
        if isinstance(text, str) and text and not self._items:
            self._items.append({"role": "system", "content": text})

    def _add_item(self, item: Row) -> None:
        self._items.append(item)
        self._answered = self._answered or item.get("role") == "assistant" or item.get("type") in _CALLS


def _is_encrypted(item: Any) -> bool:
    return isinstance(item, Mapping) and str(item.get("type")).startswith("compaction")


def _not_a_row(row: Row, where: str) -> dict[str, Any]:
    raise RefusedRow(f"{where}: a single event of a session", "give the whole session file")


CODEX = DialectSpec(
    "codex",
    "session files of Codex: session_meta, response_item",
    lambda row: False,
    _not_a_row,
    (),
    is_part=_is_codex,
    join=_join_codex,
)
