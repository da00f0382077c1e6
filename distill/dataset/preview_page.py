"""`show` as one web page that needs nothing else: no network, no script, and no text of others that could act."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from distill.dataset.cache import prepare_data
from distill.dataset.pipeline import Pipeline
from distill.dataset.preview import Place, ShownRow, places
from distill.encode.encoder import Encoder
from distill.errors import DistillError, UsageError
from distill.files.atomic import whole_file
from distill.files.text import printable
from distill.transcripts.sources import Data
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_BINS = 24
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


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of the histogram: examples of `low` to `high` tokens, and those with so many trained ones."""

    low: int
    high: int
    rows: int
    trained: int


def histogram(summary: PageSummary) -> list[Bin]:
    """The lengths of the examples, and how many of their tokens are trained, in bins of equal width."""
    longest = max(summary.lengths, default=0)
    width = max(1, -(-(longest + 1) // _BINS))
    rows = Counter(length // width for length in summary.lengths)
    trained = Counter(count // width for count in summary.trained)
    return [Bin(n * width, (n + 1) * width - 1, rows[n], trained[n]) for n in range(longest // width + 1)]


def write_page(
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
    check_target(target)
    made = [_page_row(row, encoder) for row in rows]
    shown = made[-1].row.row if made else 0
    page = _template().generate(about=about, summary=summary, bins=histogram(summary), shown=shown, rows=made)
    try:
        with whole_file(target) as file:
            file.writelines(page)
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file that can be written") from None
    return shown


def check_target(target: Path) -> None:
    """Replace only what looks like a page: a slip of the hand must not cost a file of transcripts.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be read, or its folder is missing.
    """
    try:
        with open(target, "rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        if not target.parent.is_dir():
            raise DistillError(f"{target}: {error.strerror}", "make its folder first") from None
        return
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file to write to") from None
    if head and not head.lstrip().lower().startswith(b"<!doctype html"):
        raise UsageError(f"{target} is no web page; it was left as it is", "give another file to write to")


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


def _visible(text: str) -> Markup:
    """Text in which what cannot be seen is an escape of its own look, and a line break has a mark before it."""
    from markupsafe import Markup, escape

    shown = []
    for char in text:
        if char == "\n":
            shown.append(Markup("<i>↵</i>\n"))
        elif char.isprintable():
            shown.append(escape(char))
        else:
            shown.append(Markup("<i>{}</i>").format(printable(char)))
    return Markup("").join(shown)


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    words = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=PackageLoader("distill.pages"), autoescape=True, **words)
    environment.filters["visible"] = _visible
    return environment.get_template("show.html.jinja")
