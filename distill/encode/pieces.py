"""Segments to pieces that become tokens in one go, and the tokens of the pieces to an encoded conversation."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from distill.encode.plain_text import PlainText, Tokens
from distill.types import Encoded, Segment

_HOLE = "\U000f6d1c"  # private use; takes the place of a text in a frame


class Span(NamedTuple):
    """A stretch of text with an owner: where it starts and ends, whose message it is, whether it is reasoning."""

    start: int
    end: int
    message_index: int
    reasoning: bool


class Piece(NamedTuple):  # not a dataclass: there are fifty of them in a chat of four turns
    """A part of a conversation that becomes tokens in one go.

    Attributes:
        text: ordinary text, to be encoded; empty where the tokens are known.
        known: the tokens, where they are known: a control token's, or what a frame always has there.
        assistant: whether the assistant wrote it.
        end_of_turn: whether it belongs to an end-of-turn marker.
        first: whether the text starts the input.
        spans: the messages' text inside it.
    """

    text: str
    known: Encoded | None
    assistant: bool = False
    end_of_turn: bool = False
    first: bool = False
    spans: Sequence[Span] = ()

    @property
    def has_one_owner(self) -> bool:
        """Whether all of it has the same owner, or none: no token has to be traced to its characters then."""
        return not self.spans or (self.spans[0].start <= 0 and self.spans[0].end >= len(self.text))


def cut(segments: Iterable[Segment], plain: PlainText) -> Iterator[Piece]:
    """Cut a conversation into control tokens and runs of ordinary text."""
    first, swallow = True, False
    for (assistant, end_of_turn, _), stretch in itertools.groupby(segments, _stretch):
        parts = list(stretch)
        text = "".join([part.text for part in parts])
        spans = _spans_of(parts)
        at = len(text) - len(text.lstrip()) if swallow and not assistant else 0
        for start, end, token in plain.controls_of(parts, text):
            if start < at:  # white space that the control token before it swallowed
                continue
            end_strip = len(text) - len(text[end:].lstrip()) if token.rstrip else end
            start_strip = max(at, len(text[:start].rstrip())) if token.lstrip else start
            if start_strip > at:
                yield _run(text, at, start_strip, spans, assistant, end_of_turn, first)
            owner = next((span for span in spans if span.start < end and start < span.end), None)
            yield Piece("", _control(plain.ids[token.content], assistant, end_of_turn, owner))
            first, at, swallow = False, end_strip, token.rstrip and end_strip == len(text)
        if at < len(text):
            yield _run(text, at, len(text), spans, assistant, end_of_turn, first)
            first, swallow = False, False


def _stretch(segment: Segment) -> tuple[bool, bool, int]:
    """Segments with the same key are encoded jointly: what an assistant wrote in a turn, its end marker, the rest."""
    assistant = segment.role == "assistant"
    return assistant, segment.end_of_turn, segment.turn if assistant else -1


def _spans_of(parts: Iterable[Segment]) -> list[Span]:
    """Where each message's text is in the joined segments."""
    spans = []
    start = 0
    for part in parts:
        end = start + len(part.text)
        if part.content or part.turn >= 0:
            spans.append(Span(start, end, part.turn, part.reasoning))
        start = end
    return spans


def _run(
    text: str, start: int, end: int, spans: Sequence[Span], assistant: bool, end_of_turn: bool, first: bool
) -> Piece:
    """Ordinary text between two places of a stretch."""
    inside = [
        Span(span.start - start, span.end - start, span.message_index, span.reasoning)
        for span in spans
        if span.start < end and span.end > start
    ]
    return Piece(text[start:end], None, assistant, end_of_turn, first, inside)


def _control(token: int, assistant: bool, end_of_turn: bool, owner: Span | None) -> Encoded:
    index, reasoning = (owner.message_index, owner.reasoning) if owner else (-1, False)
    return Encoded([token], [int(assistant)], [int(end_of_turn)], [index], [int(reasoning)])


def structure_of(segments: Sequence[Segment]) -> Hashable:
    """What conversations that differ in the messages' texts only have in common."""
    return tuple(
        [(part.role, part.turn, part.end_of_turn, part.reasoning) if part.content else part for part in segments]
    )


class Frame:
    """The tokens that all conversations of one structure share, with the places of their texts.

    Args:
        segments: one such conversation.
        plain: encodes its texts; must be `position_free`.
    """

    def __init__(self, segments: Sequence[Segment], plain: PlainText):
        hollow = [
            Segment(_HOLE, True, part.role, part.turn, part.end_of_turn, part.reasoning) if part.content else part
            for part in segments
        ]
        self._pieces: list[Piece] = []
        for is_fixed, group in itertools.groupby(cut(hollow, plain), lambda piece: _HOLE not in piece.text):
            pieces = list(group)
            if is_fixed:
                texts = {(piece.text, piece.first): True for piece in pieces if piece.known is None}
                pieces = [Piece("", assemble(pieces, plain.encode_batch(texts)))]
            self._pieces += pieces
        holes = [piece.text.count(_HOLE) for piece in self._pieces if piece.known is None]
        self._usable = holes == [1] * sum(part.content for part in segments)

    def filled(self, segments: Sequence[Segment]) -> list[Piece] | None:
        """Put the texts of a conversation of this structure in their places; None where that cannot be done."""
        texts = [part.text for part in segments if part.content]
        if not self._usable or "" in texts:
            return None
        following = iter(texts)
        return [piece if piece.known is not None else _fill(piece, next(following)) for piece in self._pieces]


def _fill(hollow: Piece, text: str) -> Piece:
    """Put a text into the hole of a piece."""
    before, _, after = hollow.text.partition(_HOLE)
    at, more = len(before), len(text) - 1
    spans = [
        Span(
            span.start + more if span.start > at else span.start,
            span.end + more if span.end > at else span.end,
            span.message_index,
            span.reasoning,
        )
        for span in hollow.spans
    ]
    return Piece(before + text + after, None, hollow.assistant, hollow.end_of_turn, hollow.first, spans)


def assemble(pieces: Sequence[Piece], encodings: Mapping[tuple[str, bool], Tokens]) -> Encoded:
    """Join the tokens of a conversation's pieces.

    Args:
        pieces: in order.
        encodings: the tokens of those whose tokens are not known yet, by text and `first`.
    """
    whole = Encoded([], [], [], [], [])
    for piece in pieces:
        known = piece.known
        if known is not None:
            whole.input_ids.extend(known.input_ids)
            whole.assistant_mask.extend(known.assistant_mask)
            whole.end_of_turn.extend(known.end_of_turn)
            whole.turn.extend(known.turn)
            whole.reasoning.extend(known.reasoning)
            continue
        tokens = encodings[piece.text, piece.first]
        size = len(tokens.ids)
        whole.input_ids.extend(tokens.ids)
        whole.assistant_mask.extend([int(piece.assistant)] * size)
        whole.end_of_turn.extend([int(piece.end_of_turn)] * size)
        if piece.has_one_owner:
            owned = [(size, piece.spans[0] if piece.spans else None)]
        else:
            owned = _owners(piece.spans, tokens.offsets(), tokens.shift)
        for count, owner in owned:
            whole.turn.extend([owner.message_index if owner else -1] * count)
            whole.reasoning.extend([int(owner is not None and owner.reasoning)] * count)
    return whole


def _owners(spans: Sequence[Span], offsets: Sequence[tuple[int, int]], shift: int) -> list[tuple[int, Span | None]]:
    """Who owns the tokens of a text: how many in a row belong to the same span, or to none.

    A token belongs to the first span that it touches. Tokens and spans both run from left to right.
    """
    owned: list[tuple[int, Span | None]] = []
    at = 0  # the first token without an owner yet
    for span in spans:
        start, end = span.start + shift, span.end + shift
        first = bisect_left(offsets, True, lo=at, key=lambda token: start < token[1] or start <= token[0])
        after = bisect_left(offsets, True, lo=first, key=lambda token: token[0] >= end)
        owned += [(first - at, None), (after - first, span)]
        at = after
    return [*owned, (len(offsets) - at, None)]
