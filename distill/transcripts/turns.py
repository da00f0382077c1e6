"""Which answers of a conversation are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from distill.types import Transcript

Turns = Literal["all", "last"]


def choose_turns(transcripts: Iterable[Transcript], turns: Turns) -> Iterator[Transcript]:
    """Mark the answers to train; see `with_turns`."""
    return (with_turns(transcript, turns) for transcript in transcripts)


def with_turns(transcript: Transcript, turns: Turns) -> Transcript:
    """Mark the answers to train: `last` clears `Message.train` of every assistant message but the last.

    An answer that its row excludes (`weight: 0`, `train: false`) is not trained in either case.

    Args:
        transcript: it is not changed.
        turns: `all` or `last`.
    """
    answers = [index for index, message in enumerate(transcript.messages) if message.role == "assistant"]
    if turns == "all" or len(answers) < 2:
        return transcript
    messages = [
        replace(message, train=False) if index in answers[:-1] else message
        for index, message in enumerate(transcript.messages)
    ]
    return replace(transcript, messages=tuple(messages))
