"""Segments to the pieces that are encoded in one go, and these pieces' tokens to an encoded conversation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from distill.encode.plain_text import PlainText, Tokens
from distill.types import Encoded, Segment

_HOLE = "\U000f6d1c"  # private use; stands for a text of which a shape knows the place only

_Span = tuple[int, int, int, bool]
"""A stretch of text with an owner: start, end, turn, whether it is reasoning."""


class Piece(NamedTuple):  # a plain tuple: there are fifty of them in a chat of four turns
    """What becomes tokens in one go: a control token (`id`), or ordinary `text` with the messages' text inside it."""

    text: str
    id: int | None
    assistant: bool
    end_of_turn: bool
    first: bool
    spans: Sequence[_Span]

    @property
    def of_one(self) -> bool:
        """Whether all of it has one owner, or none: then nobody needs to know which characters a token stands for."""
        return not self.spans or (self.spans[0][0] <= 0 and self.spans[0][1] >= len(self.text))


def cut(segments: Iterable[Segment], plain: PlainText) -> Iterator[Piece]:
    """Cut a conversation into control tokens and runs of ordinary text."""
    first, swallow = True, False
    for (assistant, end_of_turn, _), stretch in itertools.groupby(segments, _stretch):
        parts = list(stretch)
        text, spans = "".join([part.text for part in parts]), []
        start = 0
        for part in parts:
            end = start + len(part.text)
            if part.content or part.turn >= 0:
                spans.append((start, end, part.turn, part.reasoning))
            start = end
        at = len(text) - len(text.lstrip()) if swallow and not assistant else 0
        for start, end, token in plain.controls_of(parts, text):
            if start < at:  # white space that the control token before it swallowed
                continue
            end_strip = len(text) - len(text[end:].lstrip()) if token.rstrip else end
            start_strip = max(at, len(text[:start].rstrip())) if token.lstrip else start
            if start_strip > at:
                yield _run(text, at, start_strip, spans, assistant, end_of_turn, first)
            inside = [span for span in spans if span[0] < end and start < span[1]]
            yield Piece("", plain.ids[token.content], assistant, end_of_turn, False, inside)
            first, at, swallow = False, end_strip, token.rstrip and end_strip == len(text)
        if at < len(text):
            yield _run(text, at, len(text), spans, assistant, end_of_turn, first)
            first, swallow = False, False


class Frame:
    """What conversations of one shape have in common: tokens that are always the same, and the places of the texts.

    Args:
        segments: of one of them.
        plain: encodes their texts; it must be `position_free`.
    """

    def __init__(self, segments: Sequence[Segment], plain: PlainText):
        self._template = [part for part in segments if not part.content]
        self._owners = [(part.role, part.turn, part.reasoning) for part in segments if part.content]
        hollow = [
            Segment(_HOLE, True, part.role, part.turn, part.end_of_turn, part.reasoning) if part.content else part
            for part in segments
        ]
        self._steps: list[Encoded | Piece] = []
        for full, pieces in itertools.groupby(cut(hollow, plain), lambda piece: _HOLE not in piece.text):
            if full:
                same = list(pieces)
                texts = {(piece.text, piece.first): True for piece in same if piece.id is None}
                self._steps.append(assemble(same, plain.encode_batch(texts)))
            else:
                self._steps += pieces
        holes = [step.text.count(_HOLE) for step in self._steps if type(step) is Piece]
        self._usable = holes == [1] * len(self._owners)

    def filled(self, segments: Sequence[Segment]) -> list[Piece | Encoded] | None:
        """Put a conversation's texts in their places; None where it does not fit."""
        contents = [part for part in segments if part.content]
        if (
            not self._usable
            or [part for part in segments if not part.content] != self._template
            or [(part.role, part.turn, part.reasoning) for part in contents] != self._owners
        ):
            return None
        texts = iter(contents)
        return [step if type(step) is Encoded else _fill(step, next(texts).text) for step in self._steps]


def _fill(hollow: Piece, text: str) -> Piece:
    """Put a text into the hole of a piece."""
    before, _, after = hollow.text.partition(_HOLE)
    at, more = len(before), len(text) - 1
    spans = [
        (a + more if a > at else a, b + more if b > at else b, turn, thought) for a, b, turn, thought in hollow.spans
    ]
    return Piece(before + text + after, None, hollow.assistant, hollow.end_of_turn, hollow.first, spans)


def _stretch(segment: Segment) -> tuple[bool, bool, int]:
    """Segments with the same key are encoded jointly: what an assistant wrote in a turn, its end marker, the rest."""
    assistant = segment.role == "assistant"
    return assistant, segment.end_of_turn, segment.turn if assistant else -1


def _run(
    text: str, start: int, end: int, spans: Sequence[_Span], assistant: bool, end_of_turn: bool, first: bool
) -> Piece:
    inside = [(a - start, b - start, turn, thought) for a, b, turn, thought in spans if a < end and b > start]
    return Piece(text[start:end], None, assistant, end_of_turn, first, inside)


def assemble(plan: Sequence[Piece | Encoded], encodings: Mapping[tuple[str, bool], Tokens]) -> Encoded:
    """Put a conversation's tokens together, in turn: those of its pieces, and those that are encoded already."""
    input_ids, assistant_mask, ends, turns, reasoning = [], [], [], [], []
    for piece in plan:
        if type(piece) is Encoded:
            input_ids.extend(piece.input_ids)
            assistant_mask.extend(piece.assistant_mask)
            ends.extend(piece.end_of_turn)
            turns.extend(piece.turn)
            reasoning.extend(piece.reasoning)
            continue
        spans = piece.spans
        if piece.id is not None:
            input_ids.append(piece.id)
            size = 1
        else:
            tokens = encodings[piece.text, piece.first]
            input_ids.extend(tokens.ids)
            size = len(tokens.ids)
        if piece.id is not None or piece.of_one:
            turn, thought = (spans[0][2], int(spans[0][3])) if spans else (-1, 0)
            turns.extend([turn] * size)
            reasoning.extend([thought] * size)
        else:
            whose, thoughts = _owners(spans, tokens.offsets(), tokens.shift)
            turns.extend(whose)
            reasoning.extend(thoughts)
        assistant_mask.extend([int(piece.assistant)] * size)
        ends.extend([int(piece.end_of_turn)] * size)
    return Encoded(input_ids, assistant_mask, ends, turns, reasoning)


def _owners(spans: Sequence[_Span], offsets: Sequence[tuple[int, int]], shift: int) -> tuple[list[int], list[int]]:
    """Whose each token is: the first span it touches. Tokens and spans both run from left to right."""
    turns, reasoning, at = [], [], 0
    a, b, turn, thought = spans[0]
    for start, end in offsets:
        start -= shift
        while b <= start and at + 1 < len(spans):
            at += 1
            a, b, turn, thought = spans[at]
        inside = start < b and (a < end - shift or a <= start)
        turns.append(turn if inside else -1)
        reasoning.append(int(inside and thought))
    return turns, reasoning
