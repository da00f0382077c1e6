"""Rendering without Jinja: where a template only copies texts, one rendering serves all conversations of a shape.

A frame is made from a conversation that was rendered and attributed in full. It holds the template's own text, and for
each place the message and field that go there and how the template trims them, which is found by rendering texts with
white space around them. Filling it gives the segments the template would give; the tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distill import Message, Segment, has_lone_surrogate
from distill.builtin.formatters.rows import Row
from distill.builtin.formatters.sentinels import Leaf

_FIELDS = {"content": "content", "reasoning": "reasoning_content"}
_LEFT, _RIGHT = "\u2005", "\u2006"  # white space that no template writes itself
_WRAPPED = re.compile(f"({_LEFT}?)distillQ7x(\\d+)x7Q({_RIGHT}?)")
_TRIMS: dict[tuple[bool, bool], Callable[[str], str]] = {
    (True, True): str,
    (False, False): str.strip,
    (False, True): str.lstrip,
    (True, False): str.rstrip,
}


class _Place(NamedTuple):
    """Where a text comes from: a message, its field, and how the template trims it."""

    message_index: int
    is_reasoning: bool
    trim: Callable[[str], str]


class Frame:
    """The segments of a shape, with a place for each text."""

    def __init__(self, parts: Sequence[tuple[Segment, _Place | None]]):
        self._parts = parts

    def fill(self, messages: Sequence[Message]) -> list[Segment]:
        """The segments of a conversation of this shape, whose texts are plain (see `is_plain`)."""
        segments: list[Segment] = []
        for part, place in self._parts:
            if place is None:
                segments.append(part)
                continue
            message = messages[place.message_index]
            text = message.reasoning_content if place.is_reasoning else message.content
            segments.append(
                Segment(place.trim(text or ""), True, part.role, place.message_index, False, part.reasoning)
            )
        return segments


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether all messages have texts that a frame can take: not blank, no reasoning inside, no lone surrogate."""
    for message in messages:
        if message.content is None or not _is_plain(message.content):
            return False
        if message.reasoning_content is not None and not _is_plain(message.reasoning_content):
            return False
    return True


def _is_plain(text: str) -> bool:
    if not text or text.isspace() or "</think>" in text:
        return False
    return text.isascii() or not has_lone_surrogate(text)


def make_frame(
    segments: Sequence[Segment],
    numbers: Sequence[int],
    leaves: Sequence[Leaf],
    rows: Sequence[Row],
    render: Callable[[Sequence[Row]], str],
) -> Frame | None:
    """Make the frame of a shape.

    Args:
        segments: the shape's, contents left empty.
        numbers: the leaves that these contents are, in order.
        leaves: what the placeholders refer to.
        rows: the conversation with placeholders.
        render: renders rows.

    Returns:
        None where texts other than messages' contents and reasoning take part.
    """
    if any(leaf.kind not in _FIELDS for leaf in leaves):
        return None
    wrapped = [_with_white_space(row) for row in rows]
    text = render(wrapped)
    if re.sub(f"[{_LEFT}{_RIGHT}]", "", text) != render(rows):
        return None
    trims = {int(found[2]): _TRIMS[bool(found[1]), bool(found[3])] for found in _WRAPPED.finditer(text)}
    order = iter(numbers)
    parts: list[tuple[Segment, _Place | None]] = []
    for part in segments:
        if not part.content:
            parts.append((part, None))
            continue
        number = next(order)
        leaf = leaves[number]
        parts.append((part, _Place(leaf.message_index, leaf.kind == "reasoning", trims[number])))
    return Frame(parts)


def _with_white_space(row: Row) -> Row:
    """A row with white space around each text."""
    wrapped = dict(row)
    for field in _FIELDS.values():
        if row.get(field):
            wrapped[field] = f"{_LEFT}{row[field]}{_RIGHT}"
    return wrapped
