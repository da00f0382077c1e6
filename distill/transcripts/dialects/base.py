"""What a dialect is, and what its readers share.

A dialect is a shape in which conversations are stored. Its reader rewrites a row as a canonical one, which
`parse_transcript` then checks; its writer does the reverse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import DataError
from distill.types import Transcript

Row = Mapping[str, Any]

SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""ShareGPT's speakers: each one's role, or `call` for an assistant's message of tool calls."""

_NICKNAMES = {"human", "gpt"}  # speakers of no other format


def whole(transcript: Transcript) -> list[Transcript]:
    """A transcript as the one part of itself."""
    return [transcript]


@dataclass(frozen=True, slots=True)
class Dialect:
    """A shape of rows.

    Attributes:
        name: as `--from` and `--to` take it.
        summary: its keys.
        matches: whether a row has this shape, by its keys.
        read: (row, its `file:line`) → the canonical row; raises DataError.
        unread: the parts of a row that `read` passes over.
        write: transcript → row, leaving out what the shape cannot hold; raises DataError where it holds nothing of it.
        parts: the transcripts that a transcript is written as, one row each.
    """

    name: str
    summary: str
    matches: Callable[[Row], bool]
    read: Callable[[Row, str], dict[str, Any]]
    unread: Callable[[Row], set[str]]
    write: Callable[[Transcript], dict[str, Any]]
    parts: Callable[[Transcript], list[Transcript]] = whole


def has_speakers(messages: Any) -> bool:
    """Whether a list of messages is ShareGPT's, whatever its key: one is `from` someone, or by a `human` or `gpt`."""
    if not isinstance(messages, list):
        return False
    return any(
        isinstance(message, dict) and ("from" in message or str(message.get("role")).lower() in _NICKNAMES)
        for message in messages
    )


def columns(row: Row, known: Collection[str]) -> dict[str, Any]:
    """The row's metadata: its own, and the columns that mean nothing to the dialect."""
    own = row.get("metadata")
    own = own if isinstance(own, dict) else {"metadata": own} if own else {}
    return {**{key: value for key, value in row.items() if key not in known and value is not None}, **own}


def unread_columns(row: Row, known: Collection[str]) -> set[str]:
    """The columns for which the metadata has another value of the same name, which stays."""
    own = row.get("metadata")
    own = own if isinstance(own, dict) else {}
    other = {key for key, value in row.items() if key in own and key not in known and value not in (None, own[key])}
    return {f"column `{key}`" for key in other}


def unread_fields(messages: Any, known: Collection[str]) -> set[str]:
    """The fields of messages that no reader knows; empty ones do not count."""
    if not isinstance(messages, list):
        return set()
    found = {key for message in messages if isinstance(message, dict) for key, value in message.items() if value}
    return {f"message field `{key}`" for key in found.difference(known)}


def with_system(row: Row, messages: list[Any], where: str) -> list[Any]:
    """Put the row's `system` before its messages; an empty one is none.

    Raises:
        DataError: it is no text, or there is another system message as well.
    """
    system = row.get("system")
    if not system:
        return messages
    if not isinstance(system, str):
        raise DataError(f"{where}: `system` is not a text")
    if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system":
        if messages[0].get("content") == system:
            return messages
        raise DataError(f"{where}: the row has `system` and a system message", "leave one of them out")
    return [{"role": "system", "content": system}, *messages]


def tools_of(row: Row, where: str) -> Any:
    """The row's tools in OpenAI's shape: a list, or JSON in a string; bare functions are put into their envelope.

    Raises:
        DataError: a string that is no JSON.
    """
    tools = row.get("tools") or row.get("functions") or []
    if isinstance(tools, str):
        tools = from_json(tools, f"{where}: `tools`")
    if not isinstance(tools, list):
        return tools  # parse_transcript says what is wrong
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and not {"function", "type"} & set(tool)
        else tool
        for tool in tools
    ]


def from_json(text: str, where: str) -> Any:
    """Parse JSON in a string.

    Raises:
        DataError: it is none; says where.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is a string, but not of JSON") from None


def refuse_preferences(row: Row, where: str, marks: Iterable[str] = ("kto_tag",)) -> None:
    """Refuse rows that hold bad answers as well as good ones: trained on, they would teach the bad ones.

    Raises:
        DataError: the row is one of preferences.
    """
    found = [key for key in marks if isinstance(row.get(key), bool)]
    if row.get("chosen") is not None and row.get("rejected") is not None:
        found += ["chosen", "rejected"]
    if found:
        names = " and ".join(f"`{key}`" for key in found)
        raise DataError(
            f"{where}: a row of preferences (it has {names}), not one of answers to learn",
            "keep the good answers only, and leave those columns out",
        )
