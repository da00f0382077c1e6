"""What the readers and writers of data formats share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill import DataError, Transcript

Row = Mapping[str, Any]

SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""ShareGPT's speakers: the role of each, or `call` for an assistant's message of tool calls."""

REFUSED = "__refused__"  # see `distill.DialectSpec.join`
_NICKNAMES = {"human", "gpt"}  # speakers of no other format
LANGCHAIN_TYPES = ("human", "ai", "system", "tool", "function", "chat", "AIMessageChunk", "HumanMessageChunk")


def first_message(messages: Any) -> Row:
    """The first message of a list that may be anything; empty where there is none."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return first if isinstance(first, Mapping) else {}


def has_speakers(messages: Any) -> bool:
    """Whether a list of messages is ShareGPT's, whatever its key: one is `from` someone, or by a `human` or `gpt`."""
    if not isinstance(messages, list):
        return False
    return any(
        isinstance(message, dict) and ("from" in message or str(message.get("role")).lower() in _NICKNAMES)
        for message in messages
    )


def is_langchain(message: Row) -> bool:
    """Whether a message is LangChain's: a `type` with `data` or `content`, or its serialized constructor."""
    if message.get("lc") is not None and "kwargs" in message:
        return True
    return "role" not in message and message.get("type") in LANGCHAIN_TYPES


def is_item(message: Row) -> bool:
    """Whether a message is an item of OpenAI's Responses API that is no message, or that has its parts."""
    kind, content = message.get("type"), message.get("content")
    if isinstance(kind, str) and (kind.endswith(("_call", "_call_output")) or kind == "reasoning"):
        return True
    if not isinstance(content, list):
        return False
    return any(isinstance(part, dict) and part.get("type") in ("input_text", "output_text") for part in content)


def with_system(row: Row, messages: list[Any], where: str) -> list[Any]:
    """Put the row's `system` before its messages; an empty one is none.

    Raises:
        DataError: it is no text, or there is another system message as well.
    """
    system = row.get("system")
    if not system:
        return messages
    if isinstance(system, list):  # Anthropic's blocks
        system = "".join(str(block.get("text") or "") for block in system if isinstance(block, dict))
    if not isinstance(system, str):
        raise DataError(f"{where}: `system` is not a text")
    first = first_message(messages)
    if first.get("role") in ("system", "developer"):
        if first.get("content") == system:
            return messages
        raise DataError(f"{where}: the row has `system` and a system message", "leave one of them out")
    return [{"role": "system", "content": system}, *messages]


def list_of(row: Row, key: str) -> Any:
    """The value of a column; a list or object that is JSON in a string, as tables hold it, is decoded."""
    value = row.get(key)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def from_json(text: str, where: str) -> Any:
    """Parse JSON in a string.

    Raises:
        DataError: it is none; says where.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is a string, but not of JSON") from None


def with_id(transcript: Transcript, row: dict[str, Any]) -> dict[str, Any]:
    """A row with the transcript's id; one that was made up from its place in a file is left out."""
    return row if transcript.id == str(transcript.source) else {"id": transcript.id, **row}


def second_of(row: Row, keys: tuple[str, str]) -> dict[str, Any]:
    """The second of two columns of the same meaning, where the row has both: it is kept in the metadata."""
    return {keys[1]: row[keys[1]]} if all(row.get(key) for key in keys) else {}
