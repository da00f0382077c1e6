"""What the trainer's collator gets, row by row: tokens, labels, and which tokens count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from distill.dataset.collate import collator_for
from distill.dataset.prepare import prepare
from distill.encode.encoder import Encoder
from distill.protocols import Labeler
from distill.types import Role, Transcript, count_trained


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row as it would be trained; `reason` says why it would not be, and then there are no tokens.

    Attributes:
        row: its number in the data, from 1.
        transcript: the conversation it is, or is a part of.
        token_ids: the tokens.
        tokens: each of them decoded.
        labels: as the collator gives them.
        special: whether a token is a control token.
        trained: how many tokens count in the loss.
        reason: why the row would be skipped.
    """

    row: int
    transcript: Transcript
    token_ids: list[int]
    tokens: list[str]
    labels: list[int]
    special: list[bool]
    trained: int
    reason: str | None = None

    @property
    def id(self) -> str:
        """The transcript's."""
        return self.transcript.id

    def as_dict(self) -> dict[str, Any]:
        """The row as `show --json` prints it."""
        row = {key: getattr(self, key) for key in ("row", "id", "token_ids", "tokens", "labels", "trained")}
        return {**row, "reason": self.reason} if self.reason else row


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token stands in the conversation.

    Attributes:
        turn: the index of the message it belongs to; -1 for the template's text.
        role: who wrote that message.
        end_of_turn: whether the token marks the end of an answer.
    """

    turn: int = -1
    role: Role | None = None
    end_of_turn: bool = False


def show(
    transcripts: Iterable[Transcript], encoder: Encoder, labeler: Labeler, name: str, count: int | None = None
) -> Iterator[ShownRow]:
    """Prepare transcripts one by one and pass each through the collator.

    Args:
        transcripts: the data.
        encoder: for the student and its format.
        labeler: decides which tokens count.
        name: the labeler's, for errors.
        count: how many rows; None: all.
    """
    collate = collator_for(labeler, encoder.tokenizer.pad_token_id)
    text_of = token_texts(encoder)
    for number, transcript in enumerate(islice(transcripts, count), 1):
        prepared = prepare([transcript], encoder, labeler, labeler_name=name)
        for skipped in prepared.skipped:
            yield ShownRow(number, transcript, [], [], [], [], 0, skipped.reason)
        for example in prepared.examples:
            batch = collate([{"input_ids": example.input_ids, "labels": example.labels}])
            yield _row(number, transcript, batch, encoder, text_of)


def _row(
    number: int, transcript: Transcript, batch: Mapping[str, Any], encoder: Encoder, text_of: Callable[[int], str]
) -> ShownRow:
    token_ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return ShownRow(
        row=number,
        transcript=transcript,
        token_ids=token_ids,
        tokens=[text_of(token) for token in token_ids],
        labels=labels,
        special=[token in encoder.control_ids for token in token_ids],
        trained=count_trained(labels),
    )


def token_texts(encoder: Encoder) -> Callable[[int], str]:
    """Give a function from a token to its text inside a row.

    Many tokenizers decode the first token of a text without the space before it; so each is decoded after another.
    """
    tokenizer = encoder.tokenizer
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]
    prefix = tokenizer.decode(before)

    @cache
    def text_of(token: int) -> str:
        text = tokenizer.decode([*before, token])
        return text[len(prefix) :] if text.startswith(prefix) else tokenizer.decode([token])

    return text_of


def places(row: ShownRow, encoder: Encoder) -> list[Place]:
    """Say of each token of a row where it stands.

    The conversation is encoded once more: whole, or up to each answer, whichever gives the very tokens of the row.
    No conversation may do so, where a formatter is not deterministic: then nothing is said of any token.
    """
    messages, tools = row.transcript.messages, row.transcript.tools
    stops = [len(messages)]
    stops += [turn + 1 for turn, message in enumerate(messages[:-1]) if message.role == "assistant"]
    for stop in stops:
        encoded = encoder.encode(messages[:stop], tools)
        if encoded.input_ids[: len(row.token_ids)] == row.token_ids:
            marks = zip(encoded.turn, encoded.end_of_turn, strict=True)
            found = [Place(turn, messages[turn].role if turn >= 0 else None, bool(end)) for turn, end in marks]
            return found[: len(row.token_ids)]
    return [Place()] * len(row.token_ids)
