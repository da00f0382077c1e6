"""Segments to tokens: the only place that tokenizes.

Three rules hold for every formatter and tokenizer:

1. Template text may become control tokens; a message's content never does, whatever strings it holds.
2. Other text is encoded jointly across the border of template and content, as `apply_chat_template` does, except that
   what the assistant wrote always starts and ends a run of its own: generation starts and stops there at inference.
3. Therefore the tokens before an answer are exactly the tokens of the prompt at inference.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.encode.pieces import Frame, Piece, assemble, cut, structure_of
from distill.encode.plain_text import SENTINEL, PlainText
from distill.encode.tool_definitions import refuse_control_tokens
from distill.errors import DataError, DistillError, PluginError, one_line
from distill.types import Encoded, Message, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from distill.protocols import Formatter

_FRAMES = 2000  # structures remembered; beyond that, all are forgotten


_CALL = (
    Message("user", "a"),
    Message(
        "assistant",
        tool_calls=({"id": "Zb3kQ9xL7", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}},),
    ),
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "c",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}


class Encoder:
    """Encodes conversations for one student.

    Args:
        tokenizer: the student's, with the formatter's special tokens already added (by `prepare_tokenizer`).
        formatter: renders conversations.
        name: the formatter's name, for errors.

    Attributes:
        control_ids: the token ids that steer the model, which content never becomes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, formatter: Formatter, name: str = "formatter"):
        self.tokenizer = tokenizer
        self.formatter = formatter
        self.name = name
        self._text = PlainText(tokenizer)
        self.control_ids = frozenset(self._text.control_ids)
        self._frames: dict[Hashable, Frame | None] = {}

    def segments(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[Segment]:
        """Render a finished conversation, and check the formatter's answer.

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

    def count_controls(self, text: str) -> int:
        """How many control tokens a template's text would become."""
        return self._text.count_controls(text)

    def holds_control(self, text: str) -> bool:
        """Whether a text holds the spelling of a control token."""
        return self._text.controls.search(text) is not None

    def first_control(self, text: str) -> int | None:
        """Where the first spelling of a control token begins in a text; None: it has none."""
        found = self._text.controls.search(text)
        return None if found is None else found.start()

    def without_controls(self, text: str) -> str:
        """A template's text without its control tokens."""
        return self._text.controls.sub(" ", text)

    def round_trip(self, text: str) -> str:
        """An ordinary text, encoded and decoded: a lossy tokenizer changes it."""
        ids = self._text.encode_batch({(text, False): False})[text, False].ids
        decoded: str = self.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
        return decoded

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Encoded]:
        """Encode rendered conversations, in one batch."""
        plans = [self._pieces(segments) for segments in rendered]
        texts: dict[tuple[str, bool], bool] = {}  # each once, and whether its tokens are traced to characters
        for piece in itertools.chain.from_iterable(plans):
            if piece.known is None:
                key = piece.text, piece.first
                texts[key] = texts.get(key, False) or not piece.has_one_owner
        encodings = self._text.encode_batch(texts)
        return [assemble(plan, encodings) for plan in plans]

    def _pieces(self, segments: Sequence[Segment]) -> list[Piece]:
        """Cut a conversation; from its structure's second one on, with the tokens that all of them share.

        Raises:
            DataError: it holds a character that distill uses itself.
        """
        if SENTINEL in text_of(segments):
            raise DataError("the text holds the character U+F6D1B, which distill reserves for itself")
        if not self._text.position_free:
            return list(cut(segments, self._text))
        structure = structure_of(segments)
        if structure not in self._frames:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            self._frames[structure] = None
            return list(cut(segments, self._text))
        frame = self._frames[structure]
        if frame is None:
            frame = self._frames[structure] = Frame(segments, self._text)
        return frame.filled(segments) or list(cut(segments, self._text))

    @functools.cached_property
    def stop(self) -> int:
        """As `stop_token_id`, computed once."""
        return self.stop_token_id()

    @functools.cached_property
    def stops(self) -> tuple[int, ...]:
        """The control tokens at which generation stops: an answer's first, then a tool call's if that is another."""
        try:
            of_calls = self._ends(_CALL, [_TOOL])
        except DistillError:  # a format without tools
            of_calls = []
        return tuple(dict.fromkeys([self.stop, *of_calls[-1:]]))

    @functools.cached_property
    def shows_call_ids(self) -> bool:
        """Whether the format writes the ids of tool calls."""
        try:
            return _CALL[1].tool_calls[0]["id"] in text_of(self.segments(_CALL, [_TOOL]))
        except DistillError:
            return False

    def stop_token_id(self) -> int:
        """The control token that ends an answer: generation stops at it.

        Raises:
            DistillError: the format marks the end of an answer by no control token.
        """
        ends = self._ends([Message("user", "a"), Message("assistant", "b")], ())
        if not ends:
            raise DistillError(
                f"format {self.name!r} ends an answer with no control token of this tokenizer, so a student could "
                "never learn to stop",
                "use a format that ends answers with eos or another special token",
            )
        return ends[-1]

    def _ends(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """The control tokens in a conversation's end-of-turn markers."""
        encoded = self.encode(messages, tools)
        ends = [token for token, end in zip(encoded.input_ids, encoded.end_of_turn, strict=True) if end]
        return [token for token in ends if token in self.control_ids]

    def _checked(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        refuse_control_tokens(tools, self.holds_control)
        try:
            segments = self.formatter.segments(
                messages, self.tokenizer, tools=tools or None, add_generation_prompt=add_generation_prompt
            )
        except DistillError:
            raise
        except Exception as error:
            raise PluginError(f"formatter {self.name!r} failed: {one_line(error)}") from error
        if not isinstance(segments, (list, tuple)):
            raise PluginError(f"formatter {self.name!r} returned something that is not a list of Segments")
        for segment in segments:
            if not isinstance(segment, Segment):
                raise PluginError(f"formatter {self.name!r} returned something that is not a list of Segments")
            if not isinstance(segment.text, str):
                raise PluginError(f"formatter {self.name!r} returned a segment whose text is not a string")
            if not (segment.content or segment.end_of_turn or segment.role is not None):
                continue
            if not 0 <= segment.turn < len(messages):
                raise PluginError(
                    f"formatter {self.name!r} returned a segment of message {segment.turn}, which does not exist"
                )
            if segment.role != messages[segment.turn].role:
                raise PluginError(
                    f"formatter {self.name!r} attributes message {segment.turn} to {segment.role}, "
                    f"but its role is {messages[segment.turn].role}"
                )
        return list(segments)


def text_of(segments: Sequence[Segment]) -> str:
    """The joined text of segments."""
    return "".join([segment.text for segment in segments])
