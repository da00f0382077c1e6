"""Which answers of a conversation are trained, and what a format did with their reasoning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from distill.types import Message, Segment, Transcript

Turns = Literal["all", "last"]


def choose_turns(transcripts: Iterable[Transcript], turns: Turns) -> Iterator[Transcript]:
    """Mark which answers are trained: `last` clears `Message.train` of every assistant message but the last.

    One that its row keeps from being trained (`weight: 0`, `train: false`) is not trained either way.

    Args:
        transcripts: passed on one by one.
        turns: `all` or `last`.
    """
    for transcript in transcripts:
        answers = [turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"]
        if turns == "all" or len(answers) < 2:
            yield transcript
            continue
        messages = [
            replace(message, train=False) if turn in answers[:-1] else message
            for turn, message in enumerate(transcript.messages)
        ]
        yield replace(transcript, messages=tuple(messages))


def ignored_reasoning(messages: Sequence[Message], segments: Sequence[Segment], turns: Iterable[int]) -> list[int]:
    """Find the answers whose reasoning the format has no place for, so that it is not in the text.

    Args:
        messages: the conversation.
        segments: how the format renders it.
        turns: the assistant messages that are trained in this rendering (many templates drop earlier reasoning, and
            mean to).

    Returns:
        Those of `turns` that have `reasoning_content`, and no segment with it.
    """
    shown = {segment.turn for segment in segments if segment.reasoning}
    return [turn for turn in turns if (messages[turn].reasoning_content or "").strip() and turn not in shown]
