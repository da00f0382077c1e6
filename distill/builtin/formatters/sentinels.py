"""Conversations with placeholders in place of their texts, and those texts found again in a rendering.

The texts that get a placeholder ("leaves"): contents, reasoning, function names, and the strings in the arguments of
tool calls. What templates compare, sort and count stays as it is: roles, ids, the keys of arguments, numbers, booleans.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from distill import DataError, Message, Role, Segment, has_lone_surrogate
from distill.builtin.formatters.rows import Row

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

Kind = Literal["content", "reasoning", "call", "name"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text that a placeholder stands for, and where it comes from.

    Attributes:
        text: the message's text.
        message_index: whose it is.
        role: the role of that message.
        kind: its content, its reasoning, a string of a tool call, or a name.
    """

    text: str
    message_index: int
    role: Role
    kind: Kind


class Skeleton(NamedTuple):
    """A rendering of placeholders: the template's own text, and which leaf follows each piece of it.

    Attributes:
        texts: the template's text before, between and after the leaves; one more than there are leaves.
        leaves: the numbers of the leaves, in the order of the rendering.
    """

    texts: tuple[str, ...]
    leaves: tuple[int, ...]


def without_reasoning(message: Message, index: int) -> Message:
    """The message without its reasoning, be it apart or in `<think>…</think>` before the answer."""
    content = message.content
    if message.role == "assistant" and content:
        split = _split_thought(content, index, bool(message.tool_calls))
        if split is not None:
            content = split[1].lstrip("\n")
    return replace(message, content=content, reasoning_content=None)


def with_thoughts_apart(rows: Sequence[Row], strip: bool = True) -> list[Row] | None:
    """The rows with `<think>…</think>` moved from content to `reasoning_content`; None where there is none to move.

    Args:
        rows: the conversation.
        strip: take line breaks off the start of the content that is left.
    """
    apart = [with_thought_apart(row, index, strip) for index, row in enumerate(rows)]
    moved = any(new is not old for new, old in zip(apart, rows, strict=True))
    return apart if moved else None


def with_thought_apart(row: Row, index: int, strip: bool = True) -> Row:
    """One row with its `<think>…</think>` moved, if it has one; see `with_thoughts_apart`."""
    if row["role"] != "assistant" or row.get("reasoning_content") is not None:
        return row
    split = _split_thought(row["content"], index, bool(row.get("tool_calls")))
    if split is None:
        return row
    content = split[1].lstrip("\n") if strip else split[1]
    return {**row, "reasoning_content": split[0], "content": content}


def _split_thought(content: str, index: int, has_calls: bool) -> tuple[str, str] | None:
    """Split `<think>…</think>answer` into reasoning and answer; None where the content has another form."""
    match = _THOUGHT.fullmatch(content) if "</think>" in content else None
    if not match:
        return None
    if not match[2].strip() and not has_calls:
        raise DataError(f"message {index}: the answer is empty after its reasoning")
    return match[1].strip("\n"), match[2]


def cut_thought(content: str, index: int) -> list[Segment]:
    """Cut an answer that a template renders with its `<think>…</think>`: the reasoning, then the rest."""
    match = _THOUGHT.fullmatch(content)
    end = len(content) - len(match[2].lstrip()) if match else 0
    segments = [
        Segment(content[:end], True, "assistant", index, reasoning=True),
        Segment(content[end:], True, "assistant", index),
    ]
    return [segment for segment in segments if segment.text]


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
        self.rows = [self._row(row, index, keep_blank) for index, row in enumerate(rows)]

    def _row(self, row: Row, index: int, keep_blank: bool) -> Row:
        blank = dict(row)
        role: Role = row["role"]
        reasoning = row.get("reasoning_content")
        if reasoning is not None and reasoning.strip():
            blank["reasoning_content"] = self._take(reasoning, index, role, "reasoning")
        content = row.get("content")
        may_stay = keep_blank or "tool_calls" in row
        if content is not None and (content.strip() or not may_stay):
            blank["content"] = self._take(content, index, role, "content")
        for key in ("name", "tool_call_id", "refusal"):
            if key in row:
                blank[key] = self._plain(row[key], index, role)
        if "tool_calls" in row:
            blank["tool_calls"] = [self._call(call, index, role) for call in row["tool_calls"]]
        return blank

    def _call(self, call: Mapping[str, Any], index: int, role: Role) -> Row:
        blank: Row = {}
        for key, value in call.items():
            if key in ("id", "type") and isinstance(value, str):
                blank[key] = self._plain(value, index, role)
            else:
                blank[key] = self._value(value, index, role)
        return blank

    def _take(self, text: str, index: int, role: Role, kind: Kind) -> str:
        if has_lone_surrogate(text):
            raise DataError(f"message {index} has a lone surrogate (invalid Unicode)")
        self.leaves.append(Leaf(text, index, role, kind))
        return f"distillQ7x{len(self.leaves) - 1}x7Q"

    def _plain(self, text: str, index: int, role: Role) -> str:
        """A plain word stays, unless it could become a control token."""
        if _PLAIN.fullmatch(text) and not self._added.search(text):
            return text
        return self._take(text, index, role, "name")

    def _value(self, value: Any, index: int, role: Role) -> Any:
        if isinstance(value, str):
            return self._take(value, index, role, "call")
        if isinstance(value, Mapping):
            return {self._plain(key, index, role): self._value(item, index, role) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._value(item, index, role) for item in value]
        return value


def split_at_placeholders(text: str) -> Skeleton:
    """Split a rendering of placeholders into the template's text and the numbers of the leaves."""
    parts = _PLACEHOLDER.split(text)
    return Skeleton(tuple(parts[0::2]), tuple(int(number) for number in parts[1::2]))


def find_texts(skeleton: Skeleton, leaves: Sequence[Leaf], rendered: str) -> list[str] | None:
    """Find the real texts in the real rendering, between the template's unchanged pieces.

    Args:
        skeleton: the rendering of placeholders.
        leaves: what its numbers refer to.
        rendered: the real rendering.

    Returns:
        The texts in the order of the rendering, as they are rendered (trimmed or JSON-escaped, perhaps); None where
        template and texts together do not give `rendered`.
    """
    first, *others = skeleton.texts
    if not rendered.startswith(first):
        return None
    texts: list[str] = []
    at = len(first)
    for number, following in zip(skeleton.leaves, others, strict=True):
        found = _written_form(leaves[number].text, following, rendered, at)
        if found is None:
            return None
        texts.append(found)
        at += len(found) + len(following)
    return texts if at == len(rendered) else None


def _written_form(text: str, following: str, rendered: str, at: int) -> str | None:
    """The form in which a text and the template's text after it are found at a place of the rendering."""
    if rendered.startswith(text + following, at):
        return text
    for form in _forms(text):
        if rendered.startswith(form + following, at):
            return form
    return None


def _forms(text: str) -> Iterator[str]:
    """How templates write a text: as it is, trimmed, or as JSON."""
    trimmed = list(dict.fromkeys(trim(text) for trim in _TRIMS))
    yield from trimmed
    for form in trimmed:
        yield json.dumps(form, ensure_ascii=False)[1:-1]
        yield json.dumps(form)[1:-1]
