"""Conversations with their texts taken out, and those texts found again in a rendering.

What a message says is taken out leaf by leaf: content, reasoning, function names, and the strings within the arguments
of tool calls. What templates compare, sort and measure stays as it is: roles, ids, the keys of arguments; and what has
no text in it: numbers, true, false.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from distill import DataError, Message, Segment, has_half_surrogate, message_to_dict

# Letters and digits only: survives trimming, escaping and JSON in any template.
_PLACEHOLDER = re.compile(r"distillQ7x(\d+)x7Q")
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_THOUGHT = re.compile(r"\s*(?:<think>)?((?:(?!</?think>).)*)</think>((?:(?!</?think>).)*)", re.DOTALL)
_TRIMS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.rstrip,
    str.lstrip,
    lambda text: text.strip("\n"),
    lambda text: text.rstrip("\n"),
    lambda text: text.lstrip("\n"),
)

Row = dict[str, Any]
"""A message as templates get it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text that a placeholder stands for, and where it comes from: message `turn`'s content, reasoning, or a call."""

    text: str
    turn: int
    role: str
    kind: Literal["content", "reasoning", "call", "name"]


def as_row(message: Message, turn: int) -> Row:
    """A message as templates expect it: no content is no text, and the arguments of calls are objects."""
    row = message_to_dict(message)
    row.pop("weight", None)
    row["content"] = row["content"] or ""
    if message.tool_calls:
        row["tool_calls"] = [_with_object(call, turn) for call in message.tool_calls]
    return row


def _with_object(call: Mapping[str, Any], turn: int) -> Row:
    """OpenAI's arguments are JSON text; templates want the object it stands for. Text that is none stays text."""
    nested = isinstance(call.get("function"), Mapping)
    function = dict(call["function"] if nested else call)
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise DataError(f"message {turn} has a tool call without a function's name")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        function["arguments"] = {}
    elif isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        function["arguments"] = parsed if isinstance(parsed, dict) else arguments
    return {**call, "function": function} if nested else function


def without_reasoning(message: Message, turn: int) -> Message:
    """The message without its thinking, be it apart or in `<think>…</think>` before the answer."""
    content = message.content
    if message.role == "assistant" and content and (split := _split_thought(content, turn, message.tool_calls)):
        content = split[1]
    return replace(message, content=content, reasoning_content=None)


def with_thoughts_apart(rows: Sequence[Row]) -> list[Row] | None:
    """The rows with `<think>…</think>` moved out of contents, as Qwen3's template does; None where there is none."""
    apart = []
    for turn, row in enumerate(rows):
        split = None
        if row["role"] == "assistant" and row.get("reasoning_content") is None:
            split = _split_thought(row["content"], turn, row.get("tool_calls"))
        apart.append({**row, "reasoning_content": split[0], "content": split[1]} if split else row)
    return apart if any(new is not old for new, old in zip(apart, rows, strict=True)) else None


def _split_thought(content: str, turn: int, calls: Any) -> tuple[str, str] | None:
    match = _THOUGHT.fullmatch(content) if "</think>" in content else None
    if not match:
        return None
    if not match[2].strip() and not calls:
        raise DataError(f"message {turn}: the answer is empty after its reasoning")
    return match[1].strip("\n"), match[2].lstrip("\n")


def cut_thought(content: str, turn: int) -> list[Segment]:
    """An answer's text whose template leaves its `<think>…</think>` where it stands: the thinking, then the rest."""
    match = _THOUGHT.fullmatch(content)
    thought = len(content) - len(match[2].lstrip()) if match else 0
    pieces = (content[:thought], True), (content[thought:], False)
    return [Segment(text, True, "assistant", turn, reasoning=reasoning) for text, reasoning in pieces if text]


class Blanks:
    """Rows with a placeholder for each text.

    Args:
        rows: the conversation.
        added: finds the tokenizer's added tokens, which no text that stays may hold.
        keep_blank: leave contents of white space as they are: templates may ask whether there is any.

    Attributes:
        rows: the conversation with placeholders; the same for all conversations of one shape.
        leaves: what each placeholder stands for.
    """

    def __init__(self, rows: Sequence[Row], added: re.Pattern[str], keep_blank: bool = False):
        self.leaves: list[Leaf] = []
        self._added = added
        self.rows = [self._row(row, turn, keep_blank) for turn, row in enumerate(rows)]

    def _row(self, row: Row, turn: int, keep_blank: bool) -> Row:
        blank = dict(row)
        for kind, key in (("reasoning", "reasoning_content"), ("content", "content")):
            text = row.get(key)
            may_stay = keep_blank or kind == "reasoning" or "tool_calls" in row
            if text is not None and not (may_stay and not text.strip()):
                blank[key] = self._take(text, turn, row["role"], kind)
        for key in ("name", "tool_call_id", "refusal"):
            if key in row:
                blank[key] = self._plain(row[key], turn, row["role"])
        if "tool_calls" in row:
            blank["tool_calls"] = [
                {
                    key: self._plain(value, turn, row["role"])
                    if key in ("id", "type") and isinstance(value, str)
                    else self._value(value, turn, row["role"])
                    for key, value in call.items()
                }
                for call in row["tool_calls"]
            ]
        return blank

    def _take(self, text: str, turn: int, role: str, kind: Literal["content", "reasoning", "call", "name"]) -> str:
        if has_half_surrogate(text):
            raise DataError(f"message {turn} has half a surrogate pair, which is no text")
        self.leaves.append(Leaf(text, turn, role, kind))
        return f"distillQ7x{len(self.leaves) - 1}x7Q"

    def _plain(self, text: str, turn: int, role: str) -> str:
        """A plain word stays; but nothing that could become a control token does."""
        if _PLAIN.fullmatch(text) and not self._added.search(text):
            return text
        return self._take(text, turn, role, "name")

    def _value(self, value: Any, turn: int, role: str) -> Any:
        if isinstance(value, str):
            return self._take(value, turn, role, "call")
        if isinstance(value, Mapping):
            return {self._plain(key, turn, role): self._value(item, turn, role) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._value(item, turn, role) for item in value]
        return value


def split_at_placeholders(text: str) -> list[str | int]:
    """A rendering of blanks as template text and numbers of leaves, in turn; text comes first and last."""
    return [int(part) if n % 2 else part for n, part in enumerate(_PLACEHOLDER.split(text))]


def find_texts(parts: Sequence[str | int], leaves: Sequence[Leaf], rendered: str) -> list[str] | None:
    """Find the real texts in the real rendering: the template's pieces stand as they are.

    Args:
        parts: as `split_at_placeholders` gives them.
        leaves: what the numbers stand for.
        rendered: the real rendering.

    Returns:
        The texts as they are rendered (trimmed or JSON-escaped, maybe), in turn; None where the whole does not give
        `rendered`.
    """
    if not rendered.startswith(parts[0]):
        return None
    texts, at = [], len(parts[0])
    for number, rest in zip(parts[1::2], parts[2::2], strict=True):
        whole = leaves[number].text
        if not rendered.startswith(whole + rest, at):
            whole = next((form for form in _forms(whole) if rendered.startswith(form + rest, at)), None)
            if whole is None:
                return None
        texts.append(whole)
        at += len(whole) + len(rest)
    return texts if at == len(rendered) else None


def _forms(text: str) -> Iterator[str]:
    """How templates write a text: as it is, trimmed, or as JSON."""
    trimmed = list(dict.fromkeys(trim(text) for trim in _TRIMS))
    yield from trimmed
    for form in trimmed:
        yield json.dumps(form, ensure_ascii=False)[1:-1]
        yield json.dumps(form)[1:-1]
