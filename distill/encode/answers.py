"""Reading what a model wrote: the answer and the thought before it, apart as in the data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from distill.encode.encoder import Encoder
from distill.errors import DistillError
from distill.types import Message

_ASKED = Message("user", "a")
_ANSWER, _THOUGHT = "Zqanswerqz", "Zqthoughtqz"


class ReadAnswer(NamedTuple):
    """What a model wrote, without its end-of-turn marker.

    Attributes:
        text: the answer.
        reasoning: the thought before it; None where there is none, or where it never ends: then the text holds it.
    """

    text: str
    reasoning: str | None = None


class AnswerShape(NamedTuple):
    """What a format writes around an answer and its thought, after the generation prompt.

    Attributes:
        opening: before the thought; empty where the prompt opens it, None where the format leaves thoughts out.
        closing: between the thought and the answer.
        plain: before an answer without a thought.
        ending: between an answer and its end-of-turn marker.
    """

    opening: str | None
    closing: str
    plain: str
    ending: str = ""

    @property
    def is_bare(self) -> bool:
        """Whether a model writes the answer and nothing else."""
        return self.opening is None and not self.plain

    def read(self, written: str) -> ReadAnswer | None:
        """Take apart what a model wrote, special tokens included; None where it does not have this shape."""
        if self.opening is not None and (body := _without(written, self.opening)) is not None:
            thought, closed, answer = body.partition(self.closing)
            if not closed:  # spaced otherwise
                thought, closed, answer = (part.strip() for part in body.partition(self.closing.strip()))
            if closed and self.closing.strip():
                return ReadAnswer(answer, thought.strip() or None)
        if self.plain and (answer_only := _without(written, self.plain)) is not None:
            return ReadAnswer(answer_only)
        return None

    def so_far(self, written: str) -> str:
        """What to show of an answer that is being written: its thought, an empty line, and the answer.

        What surrounds them is held back until it is known to be that.
        """
        read = self.read(written)
        if read is not None:
            return f"{read.reasoning}\n\n{read.text.lstrip()}" if read.reasoning else read.text
        if any(start and start.startswith(written) for start in (self.opening, self.plain)):
            return ""
        thought = None if self.opening is None else _without(written, self.opening)
        if thought is None:
            return written.rstrip()
        closing = self.closing.strip()
        begun = (size for size in range(len(closing), 0, -1) if thought.endswith(closing[:size]))
        return thought[: len(thought) - next(begun, 0)].rstrip()


def _without(text: str, start: str) -> str | None:
    """A text without its beginning, whatever white space is around that; None where it begins otherwise."""
    if text.startswith(start):
        return text[len(start) :]
    bare = text.lstrip()
    return bare[len(start.strip()) :].lstrip() if start.strip() and bare.startswith(start.strip()) else None


@functools.lru_cache(maxsize=8)
def shape_of(encoder: Encoder) -> AnswerShape:
    """Find what a format writes around an answer, from two conversations; remembered."""
    plain = _after_prompt(encoder, Message("assistant", _ANSWER))
    before, found, after = (plain or "").partition(_ANSWER)
    marker = encoder.first_control(after)
    shape = AnswerShape(None, "", before if found else "", after[:marker] if marker is not None else "")
    thinking = _after_prompt(encoder, Message("assistant", _ANSWER, _THOUGHT))
    opening, thought, rest = (thinking or "").partition(_THOUGHT)
    closing, found, _ = rest.partition(_ANSWER)
    return shape._replace(opening=opening, closing=closing) if thought and found else shape


def _after_prompt(encoder: Encoder, answer: Message) -> str | None:
    """The text of an answer after its prompt; None where the format cannot express it, or not after the prompt."""
    try:
        prompt = "".join(segment.text for segment in encoder.prompt_segments([_ASKED]))
        whole = "".join(segment.text for segment in encoder.segments([_ASKED, answer]))
    except DistillError:
        return None
    return whole.removeprefix(prompt) if whole.startswith(prompt) else None


def read_answer(encoder: Encoder, ids: Sequence[int]) -> ReadAnswer:
    """Read the tokens of an answer, without its end-of-turn marker.

    Args:
        encoder: the model's.
        ids: what it wrote.
    """
    tokenizer, shape = encoder.tokenizer, shape_of(encoder)
    read = None if shape.is_bare else shape.read(tokenizer.decode(ids, skip_special_tokens=False))
    if read is None:
        return ReadAnswer(tokenizer.decode(ids, skip_special_tokens=True).removesuffix(shape.ending))
    text, reasoning = _without_special(encoder, read.text), read.reasoning
    return ReadAnswer(text.removesuffix(shape.ending), reasoning and _without_special(encoder, reasoning))


def read_so_far(encoder: Encoder, ids: Sequence[int]) -> str:
    """The text to show of an answer that is being written; see `AnswerShape.so_far`."""
    tokenizer, shape = encoder.tokenizer, shape_of(encoder)
    if shape.is_bare:
        shown: str = tokenizer.decode(ids, skip_special_tokens=True)
        return shown
    return _without_special(encoder, shape.so_far(tokenizer.decode(ids, skip_special_tokens=False)))


def _without_special(encoder: Encoder, text: str) -> str:
    for token in encoder.tokenizer.added_tokens_decoder.values():
        if token.special and token.content:
            text = text.replace(token.content, "")
    return text
