"""Which answers of a conversation are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from distill.types import Transcript

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
