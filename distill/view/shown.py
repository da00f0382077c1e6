"""Rows of any kind as what a page shows of them: messages with their roles, and everything else as names and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LONG = 160  # characters of a row in the list
_TEXTS = ("prompt", "instruction", "input", "completion", "response", "output", "reason", "error")
_SHAREGPT = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row on a page.

    Attributes:
        number: its line, from 1.
        messages: role and text of each message, or of each text that the row has.
        rest: the other keys, as JSON.
        first: the beginning of its first message, for the list.
        last: the beginning of its last one.
        mark: what is wrong with it; empty: nothing.
    """

    number: int
    messages: list[tuple[str, str]] = field(default_factory=list)
    rest: dict[str, str] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    mark: str = ""


def shown_row(number: int, row: Mapping[str, Any] | None, line: bytes, cut: bool) -> ShownRow:
    """Make a row of a file ready to be shown.

    Args:
        number: its line, from 0.
        row: what it holds; None: it is no JSON object.
        line: its bytes, for that case.
        cut: whether its answer was cut.
    """
    if row is None:
        text = line.decode("utf-8", "replace").rstrip("\n")
        mark = "not a JSON object" if text.strip() else "empty line"
        return ShownRow(number + 1, [("line", text)], {}, text[:_LONG], "", mark)
    messages, used = _messages(row)
    rest = {key: json.dumps(value, ensure_ascii=False, indent=1) for key, value in row.items() if key not in used}
    mark = "failed" if "error" in row else "cut" if cut else ""
    first, last = (messages[0][1][:_LONG], messages[-1][1][:_LONG]) if messages else (str(dict(row))[:_LONG], "")
    return ShownRow(number + 1, messages, rest, first, last if len(messages) > 1 else "", mark)


def _messages(row: Mapping[str, Any]) -> tuple[list[tuple[str, str]], set[str]]:
    """The messages of a row, whatever its format, and the keys they came from."""
    for key in ("messages", "conversations"):
        listed = row.get(key)
        if isinstance(listed, list) and all(isinstance(one, Mapping) for one in listed):
            return [_message(one) for one in listed], {key}
    found = [(key, str(row[key])) for key in _TEXTS if isinstance(row.get(key), str)]
    return found, {key for key, _ in found}


def _message(one: Mapping[str, Any]) -> tuple[str, str]:
    role = str(one.get("role") or one.get("from") or "?")
    content = one.get("content", one.get("value"))
    parts = [one.get("reasoning_content"), content, one.get("refusal")]
    texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts if part]
    texts += [json.dumps(call, ensure_ascii=False) for call in one.get("tool_calls") or ()]
    return _SHAREGPT.get(role, role), "\n".join(texts)
