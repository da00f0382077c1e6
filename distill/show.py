"""What the trainer's collator gets, row by row: tokens, labels, and which tokens count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from distill.collate import collator_for
from distill.encode import Encoder
from distill.prepare import prepare
from distill.protocols import Labeler
from distill.types import Transcript, count_trained


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row as it would be trained; `reason` says why it would not be, and then there are no tokens.

    Attributes:
        row: its number in the data, from 1.
        id: the transcript's.
        token_ids: the tokens.
        tokens: each of them decoded.
        labels: as the collator gives them.
        special: whether a token is a control token.
        trained: how many tokens count in the loss.
        reason: why the row would be skipped.
    """

    row: int
    id: str
    token_ids: list[int]
    tokens: list[str]
    labels: list[int]
    special: list[bool]
    trained: int
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as `show --json` prints it."""
        row = {key: getattr(self, key) for key in ("row", "id", "token_ids", "tokens", "labels", "trained")}
        return {**row, "reason": self.reason} if self.reason else row


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
    for number, transcript in enumerate(islice(transcripts, count), 1):
        prepared = prepare([transcript], encoder, labeler, labeler_name=name)
        for skipped in prepared.skipped:
            yield ShownRow(number, transcript.id, [], [], [], [], 0, skipped.reason)
        for example in prepared.examples:
            batch = collate([{"input_ids": example.input_ids, "labels": example.labels}])
            yield _row(number, transcript.id, batch, encoder)


def _row(number: int, id: str, batch: Mapping[str, Any], encoder: Encoder) -> ShownRow:
    token_ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return ShownRow(
        row=number,
        id=id,
        token_ids=token_ids,
        tokens=[encoder.tokenizer.decode([token]) for token in token_ids],
        labels=labels,
        special=[token in encoder.control_ids for token in token_ids],
        trained=count_trained(labels),
    )
