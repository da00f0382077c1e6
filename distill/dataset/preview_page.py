"""`show` as one web page that needs nothing else: no network, no script, and no text of others that could act."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from distill.dataset.cache import prepare_data
from distill.dataset.pipeline import Pipeline
from distill.dataset.preview import Place, ShownRow, places
from distill.encode.encoder import Encoder
from distill.pages import check_page_target, page_stream, write_page
from distill.pages.charts import histogram
from distill.transcripts.sources import Data
from distill.types import IGNORE_INDEX

_BROKEN = "\ufffd"  # how a part of a character decodes
_PARTS = 8  # the most tokens that a character is looked for in


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is shown in one colour: a token; or the tokens that are one character together."""

    text: str
    hover: str
    trained: bool
    special: bool
    turn: int


@dataclass(frozen=True, slots=True)
class _PageRow:
    """A row, ready to be shown: its pieces by message, so that text that runs from right to left stays within one."""

    row: ShownRow
    runs: list[list[_Piece]]


@dataclass(frozen=True, slots=True)
class PageSummary:
    """Counts over all rows, shown or not.

    Attributes:
        rows: rows of the data.
        lengths: tokens of each example; there are more examples than rows where rows were split by answer.
        trained: trained tokens of each example.
        reasons: why rows would be skipped, and how many.
    """

    rows: int = 0
    lengths: Sequence[int] = ()
    trained: Sequence[int] = ()
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def skipped(self) -> int:
        """Rows that would not be trained."""
        return sum(self.reasons.values())

    @property
    def median(self) -> int:
        """Tokens of the example in the middle."""
        return int(statistics.median(self.lengths)) if self.lengths else 0


def summarise(data: Data, pipeline: Pipeline) -> PageSummary:
    """Prepare all rows of a file, as `train` and `check` do, and count.

    Raises:
        DataError: it is empty, or a row is no conversation.
    """
    prepared = prepare_data(data, pipeline)
    return PageSummary(
        rows=prepared.rows,
        lengths=prepared.examples.lengths.tolist(),
        trained=prepared.examples.trained.tolist(),
        reasons=Counter(skipped.reason for skipped in prepared.skipped),
    )


def write_preview(
    rows: Iterable[ShownRow], summary: PageSummary, encoder: Encoder, target: Path, about: Mapping[str, str]
) -> int:
    """Write the page; it appears whole, or not at all.

    Args:
        rows: those that stand on the page, as `show` gives them.
        summary: counts over all rows.
        encoder: that made them.
        target: the file. A page that is there already is replaced; another file is not.
        about: what the page says of itself, name by name: the data, the student, …

    Returns:
        How many rows stand on the page.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be written.
    """
    check_page_target(target)
    made = [_page_row(row, encoder) for row in rows]
    shown = made[-1].row.row if made else 0
    lengths = histogram({"tokens": summary.lengths, "trained": summary.trained}, "Tokens per example", "example")
    write_page(target, page_stream("show", about=about, summary=summary, lengths=lengths, shown=shown, rows=made))
    return shown


def _page_row(row: ShownRow, encoder: Encoder) -> _PageRow:
    pieces = _pieces(row, places(row, encoder), encoder)
    return _PageRow(row, [list(run) for _, run in groupby(pieces, lambda piece: (piece.turn, piece.special))])


def _pieces(row: ShownRow, where: Sequence[Place], encoder: Encoder) -> Iterator[_Piece]:
    at = 0
    while at < len(row.token_ids):
        end, text = at + 1, row.tokens[at]
        if _BROKEN in text and not row.special[at]:
            end, text = _character(row, where, at, encoder)
        trained = row.labels[at] != IGNORE_INDEX
        yield _Piece(text, _hover(row, where[at], at, end), trained, row.special[at], where[at].turn)
        at = end


def _character(row: ShownRow, where: Sequence[Place], at: int, encoder: Encoder) -> tuple[int, str]:
    """Where the character that starts in a token ends, and its text; the token alone, if no character comes of it."""
    for end in range(at + 2, min(at + _PARTS, len(row.token_ids)) + 1):
        last = end - 1
        same = (row.labels[last] == IGNORE_INDEX) == (row.labels[at] == IGNORE_INDEX) and where[last] == where[at]
        if row.special[last] or not same:
            break
        text = encoder.tokenizer.decode(row.token_ids[at:end])
        if _BROKEN not in text:
            return end, text
    return at + 1, row.tokens[at]


def _hover(row: ShownRow, place: Place, at: int, end: int) -> str:
    ids, labels = (" ".join(map(str, values[at:end])) for values in (row.token_ids, row.labels))
    who = f"{place.role}, message {place.turn}" if place.role else "template"
    if place.end_of_turn:
        who += ", end of turn"
    return f"token {at}: id {ids}, label {labels}\n{who}"
