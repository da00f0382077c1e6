"""`show` as a web page that needs nothing else: no network, no script, and no untrusted text that could act."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.dataset.cache import prepare_data
from distill.dataset.pipeline import Pipeline
from distill.dataset.preview import ShownRow
from distill.pages.environment import check_target, environment, write_page
from distill.transcripts.sources import Data

_BINS = 24


@dataclass(frozen=True, slots=True)
class PageSummary:
    """Counts over all rows, shown or not.

    Attributes:
        rows: rows of the data.
        lengths: tokens of each example; there may be several examples per row.
        trained: trained tokens of each example.
        reasons: why rows would be skipped, with the number of rows.
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
        """The median number of tokens per example."""
        return int(statistics.median(self.lengths)) if self.lengths else 0


def summarise(data: Data, pipeline: Pipeline) -> PageSummary:
    """Prepare all rows of the data, as `train` and `check` do, and count.

    Raises:
        DataError: the data are empty, or a row is no conversation.
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
    """A bar of the histogram: examples of `low` to `high` tokens, and those with as many trained tokens."""

    low: int
    high: int
    rows: int
    trained: int


def histogram(summary: PageSummary) -> list[Bin]:
    """The lengths of the examples, and their numbers of trained tokens, in bins of equal width."""
    longest = max(summary.lengths, default=0)
    width = max(1, -(-(longest + 1) // _BINS))
    rows = Counter(length // width for length in summary.lengths)
    trained = Counter(count // width for count in summary.trained)
    return [Bin(n * width, (n + 1) * width - 1, rows[n], trained[n]) for n in range(longest // width + 1)]


def write_preview(rows: Iterable[ShownRow], summary: PageSummary, target: Path, about: Mapping[str, str]) -> int:
    """Write the page; it appears whole, or not at all.

    Args:
        rows: those on the page, as `show` gives them.
        summary: counts over all rows.
        target: the file. A page that is there already is replaced; another file is not.
        about: what the page tells about itself, name by name: the data, the student, …

    Returns:
        The number of rows on the page.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be written.
    """
    check_target(target)
    made = list(rows)
    shown = made[-1].row if made else 0
    template = environment().get_template("show.html.jinja")
    write_page(target, template.generate(about=about, summary=summary, bins=histogram(summary), shown=shown, rows=made))
    return shown
