"""Rendering without rendering: where a template only copies texts, one rendering of a shape serves for all of it.

A mould is taken from a conversation that was rendered and followed in full. It holds the template's own text, and for
each text the message it comes from and how the template trims it, which is found by rendering texts with white space
around them. Pouring another conversation of the shape gives what the template would, which the tests hold it to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distill import Message, Segment, has_half_surrogate
from distill.builtin.formatters.sentinels import Leaf, Row

_FIELDS = {"content": "content", "reasoning": "reasoning_content"}
_LEFT, _RIGHT = "\u2005", "\u2006"  # white space that no template writes itself
_WRAPPED = re.compile(f"({_LEFT}?)distillQ7x(\\d+)x7Q({_RIGHT}?)")
_TRIMS: dict[tuple[bool, bool], Callable[[str], str]] = {
    (True, True): str,
    (False, False): str.strip,
    (False, True): str.lstrip,
    (True, False): str.rstrip,
}


class _Source(NamedTuple):
    """Where a text comes from: a message, its field, and what the template trims of it."""

    turn: int
    field: str
    trim: Callable[[str], str]


class Mould:
    """The segments of a shape, with a place for each text."""

    def __init__(self, parts: Sequence[tuple[Segment, _Source | None]]):
        self._parts = parts

    def pour(self, messages: Sequence[Message]) -> list[Segment]:
        """The segments of a conversation of this shape, whose texts are plain (see `plain`)."""
        return [
            part
            if source is None
            else Segment(
                source.trim(getattr(messages[source.turn], source.field)),
                True,
                part.role,
                part.turn,
                False,
                part.reasoning,
            )
            for part, source in self._parts
        ]


def plain(messages: Sequence[Message]) -> bool:
    """Whether all messages have a text, none of which needs a closer look: thinking inside, half a surrogate pair."""
    for message in messages:
        for text in (message.content, message.reasoning_content):
            if text is None:
                continue
            if not text or text.isspace() or "</think>" in text:
                return False
            if has_half_surrogate(text):
                return False
        if message.content is None:
            return False
    return True


def take_mould(
    segments: Sequence[Segment],
    numbers: Sequence[int],
    leaves: Sequence[Leaf],
    rows: Sequence[Row],
    render: Callable[[Sequence[Row]], str],
) -> Mould | None:
    """Take a mould of a shape.

    Args:
        segments: the shape's, contents left empty.
        numbers: the leaves that these contents are, in turn.
        leaves: what the placeholders stand for.
        rows: the conversation with placeholders.
        render: renders rows.

    Returns:
        None where texts other than messages' contents and reasoning take part.
    """
    if any(leaf.kind not in _FIELDS for leaf in leaves):
        return None
    wrapped = [
        {**row, **{key: f"{_LEFT}{row[key]}{_RIGHT}" for key in _FIELDS.values() if row.get(key)}} for row in rows
    ]
    text = render(wrapped)
    if re.sub(f"[{_LEFT}{_RIGHT}]", "", text) != render(rows):
        return None
    trims = {int(found[2]): _TRIMS[bool(found[1]), bool(found[3])] for found in _WRAPPED.finditer(text)}
    order = iter(numbers)
    parts: list[tuple[Segment, _Source | None]] = []
    for part in segments:
        if not part.content:
            parts.append((part, None))
            continue
        number = next(order)
        leaf = leaves[number]
        parts.append((part, _Source(leaf.turn, _FIELDS[leaf.kind], trims[number])))
    return Mould(parts)
