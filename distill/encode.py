"""Segments to tokens: the only place that tokenizes.

Three rules hold for every formatter and tokenizer:

1. Template text may become control tokens; a message's content never does, whatever strings it holds.
2. Other text is encoded jointly across the border of template and content, as `apply_chat_template` does, except that
   what the assistant wrote always starts and ends a run of its own: there inference starts, and stops, to generate.
3. Therefore the tokens before an answer are the very tokens of the prompt at inference.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import DataError, DistillError, PluginError
from distill.plain_text import SENTINEL, PlainText, Tokens
from distill.plugins import one_line
from distill.protocols import ShapedFormatter
from distill.tools import refuse_control_tokens
from distill.types import Encoded, Message, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from distill.protocols import Formatter

_Span = tuple[int, int, int, bool]
"""A stretch of text with an owner: start, end, turn, whether it is reasoning."""


class _Piece(NamedTuple):  # a plain tuple: there are fifty of them in a chat of four turns
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


class Encoder:
    """Encodes conversations for one student.

    Args:
        tokenizer: the student's, with the formatter's special tokens already added (`distill.student` does that).
        formatter: renders conversations.
        name: the formatter's name, for errors.

    Attributes:
        control_ids: the token ids that steer the model, which content never becomes.
        proved: of a conversation's shape, whether its answers stand there as at inference (see `distill.prepare`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, formatter: Formatter, name: str = "formatter"):
        self.tokenizer = tokenizer
        self.formatter = formatter
        self.name = name
        self._text = PlainText(tokenizer)
        self.control_ids = frozenset(self._text.control_ids)
        self.proved: dict[Hashable, bool] = {}

    def segments(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
        """Render a finished conversation, and check what the formatter says of it.

        Raises:
            DataError: the formatter cannot render it.
            PluginError: the formatter's answer breaks its contract.
        """
        return self._checked(messages, tools, add_generation_prompt=False)

    def shape(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Hashable | None:
        """What decides the rendering, texts apart; None where the formatter cannot say (see `ShapedFormatter`)."""
        if not isinstance(self.formatter, ShapedFormatter):
            return None
        try:
            return self.formatter.shape(messages, self.tokenizer, tools=tools or None)
        except Exception as error:
            raise PluginError(f"formatter {self.name!r} failed: {one_line(error)}") from error

    def prompt_segments(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
        """Render a conversation up to where the assistant starts to write."""
        return self._checked(messages, tools, add_generation_prompt=True)

    def encode(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        """Encode one finished conversation."""
        return self.encode_segments([self.segments(messages, tools)])[0]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Encode a conversation as the prompt of its next answer."""
        return self.encode_segments([self.prompt_segments(messages, tools)])[0].input_ids

    def count_controls(self, text: str) -> int:
        """How many control tokens a template's text would become."""
        return self._text.count_controls(text)

    def holds_control(self, text: str) -> bool:
        """Whether a text holds the spelling of a control token."""
        return self._text.controls.search(text) is not None

    def without_controls(self, text: str) -> str:
        """A template's text without its control tokens."""
        return self._text.controls.sub(" ", text)

    def round_trip(self, text: str) -> str:
        """What becomes of an ordinary text that is encoded and decoded: a lossy tokenizer changes it."""
        ids = self._text.encode_batch({(text, False): False})[text, False].ids
        return self.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Encoded]:
        """Encode rendered conversations, in one batch."""
        plans = [list(self._plan(segments)) for segments in rendered]
        texts: dict[tuple[str, bool], bool] = {}  # each once, and whether the characters of its tokens are needed
        for piece in itertools.chain.from_iterable(plans):
            if piece.id is None:
                key = piece.text, piece.first
                texts[key] = texts.get(key, False) or not piece.of_one
        encodings = self._text.encode_batch(texts)
        return [_assemble(plan, encodings) for plan in plans]

    @functools.cached_property
    def stop(self) -> int:
        """As `stop_token_id`, asked once."""
        return self.stop_token_id()

    def stop_token_id(self) -> int:
        """The control token by which an answer ends: generation stops at it.

        Raises:
            DistillError: the format marks the end of an answer by no control token.
        """
        encoded = self.encode([Message("user", "a"), Message("assistant", "b")])
        ends = [token for token, end in zip(encoded.input_ids, encoded.end_of_turn, strict=True) if end]
        controls = [token for token in ends if token in self._text.control_ids]
        if not controls:
            raise DistillError(
                f"format {self.name!r} ends an answer with no control token of this tokenizer, so that a student "
                "could never learn to stop",
                "use a format that ends answers with eos or another special token",
            )
        return controls[-1]

    def _checked(self, messages: Sequence[Message], tools: Sequence, add_generation_prompt: bool) -> list[Segment]:
        refuse_control_tokens(tools, self.holds_control)
        try:
            segments = self.formatter.segments(
                messages, self.tokenizer, tools=tools or None, add_generation_prompt=add_generation_prompt
            )
        except DistillError:
            raise
        except Exception as error:
            raise PluginError(f"formatter {self.name!r} failed: {one_line(error)}") from error
        if not isinstance(segments, (list, tuple)) or not all(isinstance(segment, Segment) for segment in segments):
            raise PluginError(f"formatter {self.name!r} returned something that is not a list of Segments")
        for segment in segments:
            if SENTINEL in segment.text:
                raise DataError("the text holds the character U+F6D1B, which distill uses itself")
            owned = segment.content or segment.end_of_turn or segment.role is not None
            if owned and not 0 <= segment.turn < len(messages):
                raise PluginError(f"formatter {self.name!r} gave a segment of turn {segment.turn}, which is not there")
            if owned and segment.role != messages[segment.turn].role:
                raise PluginError(
                    f"formatter {self.name!r} says that {segment.role} wrote turn {segment.turn}, "
                    f"which is by {messages[segment.turn].role}"
                )
        return list(segments)

    def _plan(self, segments: Iterable[Segment]) -> Iterator[_Piece]:
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
            for start, end, token in self._text.controls_of(parts, text):
                if start < at:  # white space that the control token before it swallowed
                    continue
                end_strip = len(text) - len(text[end:].lstrip()) if token.rstrip else end
                start_strip = max(at, len(text[:start].rstrip())) if token.lstrip else start
                if start_strip > at:
                    yield _piece(text, at, start_strip, spans, assistant, end_of_turn, first)
                inside = [span for span in spans if span[0] < end and start < span[1]]
                yield _Piece("", self._text.ids[token.content], assistant, end_of_turn, False, inside)
                first, at, swallow = False, end_strip, token.rstrip and end_strip == len(text)
            if at < len(text):
                yield _piece(text, at, len(text), spans, assistant, end_of_turn, first)
                first, swallow = False, False


def text_of(segments: Sequence[Segment]) -> str:
    """The text that segments make together."""
    return "".join([segment.text for segment in segments])


def _stretch(segment: Segment) -> tuple[bool, bool, int]:
    """Segments with the same key are encoded jointly: what an assistant wrote in a turn, its end marker, the rest."""
    assistant = segment.role == "assistant"
    return assistant, segment.end_of_turn, segment.turn if assistant else -1


def _piece(
    text: str, start: int, end: int, spans: Sequence[_Span], assistant: bool, end_of_turn: bool, first: bool
) -> _Piece:
    inside = [(a - start, b - start, turn, thought) for a, b, turn, thought in spans if a < end and b > start]
    return _Piece(text[start:end], None, assistant, end_of_turn, first, inside)


def _assemble(plan: Sequence[_Piece], encodings: Mapping[tuple[str, bool], Tokens]) -> Encoded:
    input_ids, assistant_mask, ends, turns, reasoning = [], [], [], [], []
    for piece in plan:
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
