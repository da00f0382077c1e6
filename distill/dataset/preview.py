"""Rows as the trainer's collator gets them: tokens, labels, and which tokens count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, cast

from distill.dataset.collate import collator_for
from distill.dataset.pipeline import Pipeline
from distill.dataset.prepare import prepare_chunk
from distill.dataset.settings import MAX_CHARACTERS
from distill.encode.encoder import Encoder
from distill.errors import RefusedRow
from distill.pages import fragment
from distill.protocols import Collator, Labeler
from distill.transcripts.sources import Data
from distill.transcripts.turns import with_turns
from distill.types import IGNORE_INDEX, Encoded, Role, Transcript, count_trained

if TYPE_CHECKING:
    import pandas

_BROKEN = "\ufffd"  # how a part of a character decodes
_MAX_PARTS = 8  # the most tokens that one character is looked for in


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token appears in the conversation.

    Attributes:
        message: the index of the message it belongs to; -1 for the template's text.
        role: who wrote that message.
        end_of_turn: whether the token marks the end of an answer.
    """

    message: int = -1
    role: Role | None = None
    end_of_turn: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What is shown in one colour: a token, or several tokens that are one character together.

    Attributes:
        start, end: its tokens are `token_ids[start:end]`.
        text: decoded.
        trained: whether it counts in the loss.
        special: whether it is a control token.
        message: the index of the message it belongs to; -1 for the template's text.
        hover: its ids, its labels and who wrote it.
    """

    start: int
    end: int
    text: str
    trained: bool
    special: bool
    message: int
    hover: str


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as it would be trained. With a `reason` it would be skipped, and there are no tokens.

    In a notebook it shows its tokens in colour: trained ones are green.

    Attributes:
        row: its number in the data, from 1.
        transcript: the conversation it is, or is a part of.
        token_ids: the tokens.
        tokens: each of them decoded.
        labels: as the collator gives them.
        special: whether each token is a control token.
        trained: the number of tokens that count in the loss.
        reason: why the row would be skipped; None where it is trained.
        places: where each token appears in the conversation.
        runs: the tokens as they are shown, message by message, so that right-to-left text stays within its message.
    """

    row: int
    transcript: Transcript
    token_ids: list[int]
    tokens: list[str]
    labels: list[int]
    special: list[bool]
    trained: int
    reason: str | None = None
    places: list[Place] = field(default_factory=list)
    runs: list[list[Piece]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The transcript's id."""
        return self.transcript.id

    def as_dict(self) -> dict[str, Any]:
        """The row as `show --json` prints it."""
        row = {key: getattr(self, key) for key in ("row", "id", "token_ids", "tokens", "labels", "trained")}
        return {**row, "reason": self.reason} if self.reason else row

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with a line per token: `token_id`, `token`, `label`, `trained`, `special`, `role`, `message`."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "token_id": self.token_ids,
                "token": self.tokens,
                "label": self.labels,
                "trained": [label != IGNORE_INDEX for label in self.labels],
                "special": self.special,
                "role": [place.role for place in self.places],
                "message": [place.message for place in self.places],
            }
        )
        return frame

    def _repr_html_(self) -> str:
        return fragment("tokens", rows=[self])


class Preview(Sequence[ShownRow]):
    """The first rows of a data set, token by token. In a notebook they show themselves in colour."""

    def __init__(self, rows: Iterable[ShownRow]):
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __repr__(self) -> str:
        return f"Preview of {len(self)} rows: {sum(row.trained for row in self._rows)} tokens trained"

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with a line per row: the keys of `show --json`, and `reason`."""
        import pandas

        rows = [{**row.as_dict(), "reason": row.reason} for row in self._rows]
        frame: pandas.DataFrame = pandas.DataFrame(rows)
        return frame

    def _repr_html_(self) -> str:
        return fragment("tokens", rows=self._rows)


def show(
    transcripts: Iterable[Transcript | RefusedRow],
    encoder: Encoder,
    labeler: Labeler,
    name: str,
    count: int | None = None,
    max_characters: int = MAX_CHARACTERS,
) -> Iterator[ShownRow]:
    """Prepare transcripts one by one and pass each through the collator.

    Args:
        transcripts: the data, with the rows that are refused, as `Reader.outcomes` gives them.
        encoder: for the student and its format.
        labeler: decides which tokens count.
        name: the labeler's, for errors.
        count: the number of rows to show; None: all.
        max_characters: longer rows are skipped.
    """
    reader = _RowReader(encoder, collator_for(labeler, encoder.tokenizer.pad_token_id))
    for number, transcript in enumerate(islice(transcripts, count), 1):
        if isinstance(transcript, RefusedRow):
            place = str(transcript.source or "?")
            yield ShownRow(number, Transcript(place, ()), [], [], [], [], 0, transcript.reason)
            continue
        chunk = prepare_chunk([transcript], encoder, labeler, name, max_characters=max_characters)
        for skipped in chunk.skipped:
            yield ShownRow(number, transcript, [], [], [], [], 0, skipped.reason)
        for example, encoded in zip(chunk.examples, chunk.encoded, strict=True):
            row = {"input_ids": example.input_ids, "labels": example.labels}
            yield reader.read(number, transcript, row, encoded)


def show_data(data: Data, pipeline: Pipeline, count: int | None = None) -> Iterator[ShownRow]:
    """Show the rows of data as a pipeline prepares them, the refused ones included.

    Args:
        data: see `distill.transcripts.sources`.
        pipeline: how they are read, rendered and labelled.
        count: the number of rows to show; None: all.
    """
    rows = (
        one if isinstance(one, RefusedRow) else with_turns(one, pipeline.turns)
        for one in pipeline.reader.outcomes(data)
    )
    return show(
        rows, pipeline.encoder, pipeline.labeler, pipeline.labeler_name, count, max_characters=pipeline.max_characters
    )


class _RowReader:
    """Makes `ShownRow`s of labelled rows."""

    def __init__(self, encoder: Encoder, collate: Collator):
        self._encoder, self._collate = encoder, collate
        self._text_of = token_texts(encoder)

    def read(self, number: int, transcript: Transcript, row: Mapping[str, Any], encoded: Encoded) -> ShownRow:
        """A row as the collator gives it, alone in a batch."""
        batch = self._collate([row])
        token_ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        shown = ShownRow(
            row=number,
            transcript=transcript,
            token_ids=token_ids,
            tokens=[self._text_of(token) for token in token_ids],
            labels=labels,
            special=[token in self._encoder.control_ids for token in token_ids],
            trained=count_trained(labels),
            places=_places(transcript, token_ids, encoded),
        )
        runs = groupby(self._pieces(shown), lambda piece: (piece.message, piece.special))
        shown.runs.extend(list(run) for _, run in runs)
        return shown

    def _pieces(self, row: ShownRow) -> Iterator[Piece]:
        start = 0
        while start < len(row.token_ids):
            end, text = start + 1, row.tokens[start]
            if _BROKEN in text and not row.special[start]:
                end, text = self._character(row, start)
            trained, special = row.labels[start] != IGNORE_INDEX, row.special[start]
            yield Piece(start, end, text, trained, special, row.places[start].message, _hover(row, start, end))
            start = end

    def _character(self, row: ShownRow, start: int) -> tuple[int, str]:
        """Where the character that starts in a token ends, and its text; the token alone, if there is no character."""
        trained = row.labels[start] != IGNORE_INDEX
        for end in range(start + 2, min(start + _MAX_PARTS, len(row.token_ids)) + 1):
            last = end - 1
            if row.special[last] or row.places[last] != row.places[start]:
                break
            if (row.labels[last] != IGNORE_INDEX) != trained:
                break
            text = self._encoder.tokenizer.decode(row.token_ids[start:end])
            if _BROKEN not in text:
                return end, text
        return start + 1, row.tokens[start]


def _hover(row: ShownRow, start: int, end: int) -> str:
    place = row.places[start]
    ids = " ".join(map(str, row.token_ids[start:end]))
    labels = " ".join(map(str, row.labels[start:end]))
    who = f"{place.role}, message {place.message}" if place.role else "template"
    if place.end_of_turn:
        who += ", end of turn"
    return f"token {start}: id {ids}, label {labels}\n{who}"


def _places(transcript: Transcript, token_ids: list[int], encoded: Encoded) -> list[Place]:
    """Where each token appears; unknown where the collator has changed the tokens."""
    if encoded.input_ids[: len(token_ids)] != token_ids:
        return [Place()] * len(token_ids)
    messages = transcript.messages
    marks = zip(encoded.turn, encoded.end_of_turn, strict=True)
    places = [Place(index, messages[index].role if index >= 0 else None, bool(end)) for index, end in marks]
    return places[: len(token_ids)]


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
        if not text.startswith(prefix):
            text, start = tokenizer.decode([token]), 0
        else:
            start = len(prefix)
        return cast("str", text[start:])

    return text_of
