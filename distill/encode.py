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
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import DataError, DistillError, PluginError
from distill.plugins import one_line
from distill.protocols import ShapedFormatter
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
        self._text = _TextTokenizer(tokenizer)
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


def _assemble(plan: Sequence[_Piece], encodings: Mapping[tuple[str, bool], _Tokens]) -> Encoded:
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


class _Tokens(NamedTuple):
    """An encoded text: token ids, and, where somebody asks, the characters (start, end) that each token stands for.

    The text starts at character `shift` of them.
    """

    ids: list[int]
    offsets: Callable[[], list[tuple[int, int]]]
    shift: int = 0


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
        steering = [re.escape(text) for text in longest_first if text not in self._vocabulary]
        self.controls = re.compile("|".join(steering) or r"(?!)")
        self._in_template = functools.lru_cache(4096)(self._controls_in_template)
        # Where content may hold added tokens, or a token's neighbours decide, a stretch is searched as a whole.
        self._by_part = not self._vocabulary and not any(token.single_word for token in self._tokens.values())
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

    def count_controls(self, text: str) -> int:
        """How many control tokens a template's text holds."""
        return sum(self.ids[token.content] in self.control_ids for _, _, token in self._in_template(text))

    def controls_of(self, parts: Sequence[Segment], text: str) -> Iterable[tuple[int, int, AddedToken]]:
        """The added tokens in a stretch of segments, whose `text` is given too; see `find_controls`."""
        start, found, template = 0, [], []
        for part in parts:
            end = start + len(part.text)
            if not part.content:
                template.append((start, end))
                if self._by_part:
                    found += [(a + start, b + start, token) for a, b, token in self._in_template(part.text)]
            start = end
        return found if self._by_part else self.find_controls(text, template)

    def _controls_in_template(self, text: str) -> list[tuple[int, int, AddedToken]]:
        return list(self.find_controls(text, [(0, len(text))]))

    def _token_at(self, text: str, start: int, longest: str, template: Sequence[tuple[int, int]]) -> AddedToken | None:
        """The longest added token at a place that may stand there."""
        if self._fits(text, start, longest, template):
            return self._tokens[longest]
        shorter = (longest[:size] for size in range(len(longest) - 1, 0, -1) if longest[:size] in self._tokens)
        return next((self._tokens[word] for word in shorter if self._fits(text, start, word, template)), None)

    def _fits(self, text: str, start: int, word: str, template: Sequence[tuple[int, int]]) -> bool:
        end = start + len(word)
        if word not in self._vocabulary and not any(a <= start and end <= b for a, b in template):
            return False
        if not self._tokens[word].single_word:
            return True
        return not (re.search(r"\w\Z", text[:start]) or re.match(r"\w", text[end:]))

    def encode_batch(self, texts: Mapping[tuple[str, bool], bool]) -> dict[tuple[str, bool], _Tokens]:
        """Encode texts.

        Args:
            texts: each with whether it starts the input; and whether its tokens' characters will be asked for.
        """
        result = {}
        for wanted, encode in ((False, self._plain.encode_batch_fast), (True, self._plain.encode_batch)):
            keys = [key for key, needed in texts.items() if needed is wanted]
            prefixed = [text if first else _SENTINEL + text for text, first in keys]
            for key, encoding in zip(keys, encode(prefixed, add_special_tokens=False), strict=True):
                made = _read(encoding, 0 if key[1] else 1)
                if not self._forbidden.isdisjoint(made.ids):
                    made = self._split_controls(key, made) if wanted else self.encode_batch({key: True})[key]
                result[key] = made
        return result

    def _split_controls(self, key: tuple[str, bool], tokens: _Tokens) -> _Tokens:
        """A vocabulary may hold a control string as an ordinary entry (Unigram does): encode it in two halves."""
        text, first = key
        bad = next(n for n, id in enumerate(tokens.ids) if id in self._forbidden)
        start, end = (place - tokens.shift for place in tokens.offsets()[bad])
        if end - start < 2:
            raise DataError(f"the text {text[start:end]!r} can only be encoded as a control token")
        halves = {(text[: start + 1], first): 0, (text[start + 1 :], False): start + 1}
        encoded = self.encode_batch(dict.fromkeys(halves, True))

        def offsets() -> list[tuple[int, int]]:
            moves = [(encoded[half], place - encoded[half].shift) for half, place in halves.items()]
            return [(a + move, b + move) for tokens, move in moves for a, b in tokens.offsets()]

        return _Tokens([id for half in halves for id in encoded[half].ids], offsets)


def _read(encoding: Encoding, skip: int) -> _Tokens:
    """Take an encoding apart, without the sentinel before it."""
    if not skip:
        return _Tokens(encoding.ids, lambda: encoding.offsets)
    return _Tokens(encoding.ids[1:], lambda: encoding.offsets[1:], 1)


def _steers(token: AddedToken) -> bool:
    """Whether an added token is a control token: a special one, or a bracketed word such as `<think>` or `[INST]`."""
    if not token.content.strip():
        return False
    return token.special or bool(_BRACKETED.fullmatch(token.content.strip()))
