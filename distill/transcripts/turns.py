"""Which answers of a conversation are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from distill.types import Transcript

Turns = Literal["all", "last"]


def choose_turns(transcripts: Iterable[Transcript], turns: Turns) -> Iterator[Transcript]:
    """Mark the answers to train: `last` clears `Message.train` of every assistant message but the last.

    An answer that its row excludes (`weight: 0`, `train: false`) is not trained in either case.

    Args:
        transcripts: passed on one by one.
        turns: `all` or `last`.
    """
    for transcript in transcripts:
        answers = [index for index, message in enumerate(transcript.messages) if message.role == "assistant"]
        if turns == "all" or len(answers) < 2:
            yield transcript
            continue
        messages = [
            replace(message, train=False) if index in answers[:-1] else message
            for index, message in enumerate(transcript.messages)
        ]
        yield replace(transcript, messages=tuple(messages))
