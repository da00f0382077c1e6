"""Held-out conversations as questions: each answer the teacher gave, with all that was said before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from distill.collection.conversation import as_teacher_sees
from distill.encode.answers import read_answer
from distill.encode.encoder import Encoder
from distill.errors import DataError, RefusedRow
from distill.transcripts.reader import Reader
from distill.transcripts.sources import Data
from distill.transcripts.teacher_prompt import teacher_messages_of
from distill.transcripts.trainable import untrainable, untrainable_answer
from distill.types import Message, Transcript


@dataclass(frozen=True, slots=True)
class Question:
    """An answer to be given, and the one the teacher gave.

    Attributes:
        transcript: the conversation it is from.
        conversation: the conversation's number among those that are used, from 0.
        turn: which answer of the conversation, from 0.
        messages: all that was said before, the teacher's earlier answers included.
        answer: the teacher's.
    """

    transcript: Transcript
    conversation: int
    turn: int
    messages: Sequence[Message]
    answer: Message

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools of the conversation."""
        return self.transcript.tools

    @property
    def source(self) -> str:
        """The conversation's `file:line`."""
        return str(self.transcript.source or self.transcript.id)

    def as_teacher_saw(self) -> Question:
        """The question with the prompt that only the teacher saw; the same where there was none.

        Raises:
            DataError: the transcript's `teacher_messages` are malformed.
        """
        return replace(self, messages=as_teacher_sees(teacher_messages_of(self.transcript), self.messages))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the files hold.

    Attributes:
        transcripts: all conversations.
        questions: in order.
        skipped: `source` and `reason` of each conversation, or answer, that is no question.
    """

    transcripts: Sequence[Transcript]
    questions: Sequence[Question]
    skipped: Sequence[Mapping[str, str]]


def read_questions(data: Data, reader: Reader, limit: int | None = None) -> HeldOut:
    """Read held-out conversations.

    Args:
        data: the conversations, see `distill.transcripts.sources`.
        reader: reads the rows.
        limit: read only the first N conversations.

    Raises:
        DataError: a file cannot be read as transcripts.
    """
    questions: list[Question] = []
    skipped: list[Mapping[str, str]] = []

    def refuse(error: RefusedRow) -> None:
        skipped.append({"source": str(error.source or "?"), "reason": error.reason})

    taken = list(islice(reader.transcripts(data, refuse), limit))
    for number, transcript in enumerate(taken):
        source = str(transcript.source or transcript.id)
        if found := untrainable(transcript):
            skipped.append({"source": source, "reason": found.reason})
            continue
        for question in _answers(transcript, number):
            if found := untrainable_answer(question.answer):
                skipped.append({"source": source, "reason": f"message {len(question.messages)}: {found.reason}"})
            elif question.answer.train:
                questions.append(question)
    return HeldOut(taken, questions, skipped)


def _answers(transcript: Transcript, number: int) -> Iterator[Question]:
    """Each assistant message of a conversation."""
    turn = 0
    for at, message in enumerate(transcript.messages):
        if message.role == "assistant":
            yield Question(transcript, number, turn, transcript.messages[:at], message)
            turn += 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """A question and the teacher's answer, as one model reads them.

    Attributes:
        prompt: the ids before the answer: those of inference.
        answer: the ids of the answer, up to the end-of-turn marker.
        marker: how many of the last ids are the marker.
        text: the answer as a student that copies it would be read; without its thought and the marker.
    """

    prompt: list[int]
    answer: list[int]
    marker: int
    text: str

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def tokens_of(question: Question, encoder: Encoder) -> Tokens:
    """Encode a question with the teacher's answer.

    Raises:
        DataError: the format cannot express it, or not the way it is at inference.
    """
    return encode_answer(question, question.answer, encoder)


def encode_answer(question: Question, answer: Message, encoder: Encoder) -> Tokens:
    """As `tokens_of`, with another answer."""
    encoded = encoder.encode((*question.messages, answer), question.tools)
    prompt = encoder.prompt(question.messages, question.tools)
    ids, start = encoded.input_ids, len(prompt)
    if ids[:start] != prompt:
        raise DataError("the format's generation prompt is not how it renders the text before an answer")
    end = start
    while end < len(ids) and encoded.assistant_mask[end]:
        end += 1
        if encoded.end_of_turn[end - 1] and ids[end - 1] in encoder.stops:
            break  # what a template writes after it is never generated
    if end == start:
        raise DataError("the format leaves nothing of the answer")
    marker = sum(encoded.end_of_turn[start:end])
    text = answer.content or ""
    if answer.tool_calls or answer.reasoning_content:  # written by the template: compared as a model writes them
        text = read_answer(encoder, ids[start : end - marker]).text
    return Tokens(prompt, ids[start:end], marker, text)
