"""Segments to tokens: the only place that tokenizes.

Three rules hold for every formatter and tokenizer:

1. Template text may become control tokens; a message's content never does, whatever strings it holds.
2. Other text is encoded jointly across the border of template and content, as `apply_chat_template` does, except that
   what the assistant wrote always starts and ends a run of its own: there inference starts, and stops, to generate.
3. Therefore the tokens before an answer are the very tokens of the prompt at inference.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, DistillError, PluginError
from distill.plugins import one_line
from distill.tools import refuse_control_tokens
from distill.types import Encoded, Message, Segment

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding
    from transformers import PreTrainedTokenizerFast

    from distill.protocols import Formatter

_SENTINEL = "\U000f6d1b"  # private use; stands before text that does not start the input
_BRACKETED = re.compile(r"[<\[({|⟨｜].*[>\])}|⟩｜]", re.DOTALL)

Conversation = tuple[Sequence[Message], Sequence[Mapping[str, Any]]]
"""Messages and tool definitions."""


_Span = tuple[int, int, int, bool]
"""A stretch of text with an owner: start, end, turn, whether it is reasoning."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What becomes tokens in one go: a control token (`id`), or ordinary `text` with the messages' text inside it."""

    text: str
    id: int | None
    assistant: bool
    end_of_turn: bool
    first: bool
    spans: Sequence[_Span]


class Encoder:
    """Encodes conversations for one student.

    Args:
        tokenizer: the student's, with the formatter's special tokens already added (`distill.student` does that).
        formatter: renders conversations.
        name: the formatter's name, for errors.

    Attributes:
        control_ids: the token ids that steer the model, which content never becomes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, formatter: Formatter, name: str = "formatter"):
        self.tokenizer = tokenizer
        self.formatter = formatter
        self.name = name
        self._text = _TextTokenizer(tokenizer)
        self.control_ids = frozenset(self._text.control_ids)

    def segments(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
        """Render a finished conversation, and check what the formatter says of it.

        Raises:
            DataError: the formatter cannot render it.
            PluginError: the formatter's answer breaks its contract.
        """
        return self._checked(messages, tools, add_generation_prompt=False)

    def prompt_segments(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
        """Render a conversation up to where the assistant starts to write."""
        return self._checked(messages, tools, add_generation_prompt=True)

    def encode(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        """Encode one finished conversation."""
        return self.encode_segments([self.segments(messages, tools)])[0]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Encode a conversation as the prompt of its next answer."""
        return self.encode_segments([self.prompt_segments(messages, tools)])[0].input_ids

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Encoded]:
        """Encode rendered conversations, in one batch."""
        plans = [list(self._plan(segments)) for segments in rendered]
        texts = {(piece.text, piece.first) for plan in plans for piece in plan if piece.id is None}
        encodings = self._text.encode_batch(sorted(texts))
        return [_assemble(plan, encodings) for plan in plans]

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
        refuse_control_tokens(tools, self._text.ids, self.control_ids)
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
            if _SENTINEL in segment.text:
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
            text, template, spans = "", [], []
            for segment in stretch:
                start, text = len(text), text + segment.text
                if not segment.content:
                    template.append((start, len(text)))
                if segment.content or segment.turn >= 0:
                    spans.append((start, len(text), segment.turn, segment.reasoning))
            at = len(text) - len(text.lstrip()) if swallow and not assistant else 0
            for start, end, token in self._text.find_controls(text, template):
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


def _assemble(plan: Sequence[_Piece], encodings: Mapping[tuple[str, bool], _Tokens]) -> Encoded:
    encoded = Encoded([], [], [], [], [])
    for piece in plan:
        spans = piece.spans
        if piece.id is not None:
            ids = [piece.id]
        else:
            tokens = encodings[piece.text, piece.first]
            ids = tokens.ids
        if not spans:
            turns, reasoning = [-1] * len(ids), [0] * len(ids)
        elif piece.id is not None or (spans[0][0] <= 0 and spans[0][1] >= len(piece.text)):
            turns, reasoning = [spans[0][2]] * len(ids), [int(spans[0][3])] * len(ids)
        else:
            turns, reasoning = _owners(spans, tokens.offsets())
        encoded.input_ids.extend(ids)
        encoded.assistant_mask.extend([int(piece.assistant)] * len(ids))
        encoded.end_of_turn.extend([int(piece.end_of_turn)] * len(ids))
        encoded.turn.extend(turns)
        encoded.reasoning.extend(reasoning)
    return encoded


def _owners(spans: Sequence[_Span], offsets: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Whose each token is: the first span it touches. Tokens and spans both run from left to right."""
    turns, reasoning, at, last = [], [], 0, len(spans) - 1
    for start, end in offsets:
        while at < last and spans[at][1] <= start:
            at += 1
        a, b, turn, thought = spans[at]
        inside = start < b and a < max(end, start + 1)
        turns.append(turn if inside else -1)
        reasoning.append(int(inside and thought))
    return turns, reasoning


@dataclass(frozen=True, slots=True)
class _Tokens:
    """An encoded text: token ids, and, where somebody asks, the characters (start, end) that each token stands for."""

    ids: list[int]
    offsets: Callable[[], list[tuple[int, int]]]


class _TextTokenizer:
    """Encodes ordinary text: as the student's tokenizer does, but without ever making a control token of it.

    Attributes:
        ids: every added token's id.
        control_ids: ids of the added tokens that steer the model. Added tokens that are mere vocabulary (white space,
            a domain's words) are not among them: they are matched in content too, as the tokenizer itself does.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        import tokenizers

        added = tokenizer.added_tokens_decoder
        self.ids = {token.content: id for id, token in added.items() if token.content}
        self._tokens = {token.content: token for token in added.values() if token.content}
        self._vocabulary = {text for text, token in self._tokens.items() if not _steers(token)}
        self.control_ids = {id for text, id in self.ids.items() if text not in self._vocabulary}
        # Text that the vocabulary does not cover becomes unk: that is no way to steer, unless unk is eos or bos too.
        unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id, tokenizer.bos_token_id}
        self._forbidden = self.control_ids - unknown
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        config = json.loads(tokenizer.backend_tokenizer.to_str())
        config.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(config))
        self._plain.add_special_tokens([tokenizers.AddedToken(_SENTINEL, normalized=False, special=True)])

    def find_controls(self, text: str, template: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, AddedToken]]:
        """Find the added tokens in a text: leftmost, then longest, as the tokenizers library does.

        Args:
            text: a stretch of the conversation.
            template: (start, end) of the template's text in it; only there control tokens count.
        """
        at = 0
        while match := self._any.search(text, at):
            start = match.start()
            token = self._token_at(text, start, match.group(), template)
            if token is None:
                at = start + 1
                continue
            at = start + len(token.content)
            yield start, at, token

    def _token_at(self, text: str, start: int, longest: str, template: Sequence[tuple[int, int]]) -> AddedToken | None:
        for length in range(len(longest), 0, -1):
            word, end = longest[:length], start + length
            token = self._tokens.get(word)
            if token is None:
                continue
            if (token.single_word and re.search(r"\w\Z", text[:start])) or (
                token.single_word and re.match(r"\w", text[end:])
            ):
                continue
            if word in self._vocabulary or any(a <= start and end <= b for a, b in template):
                return token
        return None

    def encode_batch(self, texts: Sequence[tuple[str, bool]]) -> dict[tuple[str, bool], _Tokens]:
        """Encode texts, each with whether it starts the input."""
        prefixed = [text if first else _SENTINEL + text for text, first in texts]
        result = {}
        for key, encoding in zip(texts, self._plain.encode_batch(prefixed, add_special_tokens=False), strict=True):
            made = _read(encoding, 0 if key[1] else 1)
            result[key] = made if self._forbidden.isdisjoint(made.ids) else self._split_controls(key, made)
        return result

    def _split_controls(self, key: tuple[str, bool], tokens: _Tokens) -> _Tokens:
        """A vocabulary may hold a control string as an ordinary entry (Unigram does): encode it in two halves."""
        text, first = key
        bad = next(n for n, id in enumerate(tokens.ids) if id in self._forbidden)
        start, end = tokens.offsets()[bad]
        if end - start < 2:
            raise DataError(f"the text {text[start:end]!r} can only be encoded as a control token")
        left, right = (text[: start + 1], first), (text[start + 1 :], False)
        halves = self.encode_batch([left, right])

        def offsets() -> list[tuple[int, int]]:
            shifted = [(a + start + 1, b + start + 1) for a, b in halves[right].offsets()]
            return halves[left].offsets() + shifted

        return _Tokens(halves[left].ids + halves[right].ids, offsets)


def _read(encoding: Encoding, skip: int) -> _Tokens:
    """Take an encoding apart, without the sentinel before it."""
    if not skip:
        return _Tokens(encoding.ids, lambda: encoding.offsets)
    return _Tokens(encoding.ids[1:], lambda: [(max(a - 1, 0), max(b - 1, 0)) for a, b in encoding.offsets[1:]])


def _steers(token: AddedToken) -> bool:
    """Whether an added token is a control token: a special one, or a bracketed word such as `<think>` or `[INST]`."""
    if not token.content.strip():
        return False
    return token.special or bool(_BRACKETED.fullmatch(token.content.strip()))
