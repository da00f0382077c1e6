"""`show` as a web page: no network, no script but its search, and no untrusted text that could act."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.dataset.cache import prepare_data
from distill.dataset.conversations import Repeats, answers_of, count_repeats
from distill.dataset.pipeline import Pipeline
from distill.dataset.preview import ShownRow, show_data
from distill.dataset.settings import DataSettings
from distill.pages import check_page_target, page_stream, write_page
from distill.pages.charts import histogram
from distill.pages.environment import counted
from distill.transcripts.digest import answer_digest
from distill.transcripts.reader import skip_refused
from distill.transcripts.sources import Data, as_sources


@dataclass(frozen=True, slots=True)
class FrequentAnswer:
    """An answer that was given several times: how often, its text, and where it appears first."""

    count: int
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class PageSummary:
    """Counts over all rows, shown or not.

    Attributes:
        rows: rows of the data.
        lengths: tokens of each example; there may be several examples per row.
        trained: trained tokens of each example.
        reasons: why rows would be skipped, with the number of rows.
        repeats: how many answers are word for word the same.
        frequent: the answers that were given most often.
    """

    rows: int = 0
    lengths: Sequence[int] = ()
    trained: Sequence[int] = ()
    reasons: Counter[str] = field(default_factory=Counter)
    repeats: Repeats = field(default_factory=Repeats)
    frequent: Sequence[FrequentAnswer] = ()

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
    repeats = count_repeats(prepared.conversations)
    return PageSummary(
        rows=prepared.rows,
        lengths=prepared.examples.lengths.tolist(),
        trained=prepared.examples.trained.tolist(),
        reasons=Counter(skipped.reason for skipped in prepared.skipped),
        repeats=repeats,
        frequent=_texts_of(repeats, data, pipeline),
    )


def _texts_of(repeats: Repeats, data: Data, pipeline: Pipeline) -> list[FrequentAnswer]:
    """The most frequent answers, read again until each was found; the most frequent first."""
    found: dict[bytes, FrequentAnswer] = {}
    for transcript in pipeline.reader.transcripts(data, skip_refused) if repeats.frequent else ():
        for text in answers_of(transcript):
            digest = answer_digest(text)
            if digest in repeats.frequent and digest not in found:
                found[digest] = FrequentAnswer(repeats.frequent[digest], text, str(transcript.source or "?"))
        if len(found) == len(repeats.frequent):
            break
    return [found[digest] for digest in repeats.frequent if digest in found]


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
    check_page_target(target)
    made = list(rows)
    shown = made[-1].row if made else 0
    lengths = histogram({"tokens": summary.lengths, "trained": summary.trained}, "Tokens per example", "example")
    write_page(target, page_stream("show", about=about, summary=summary, lengths=lengths, shown=shown, rows=made))
    return shown


def write_data_page(data: Data, pipeline: Pipeline, settings: DataSettings, target: Path, count: int | None) -> str:
    """Write the page of some rows, with counts over all rows; returns a line about it.

    Args:
        data: the transcripts.
        pipeline: made of `settings`.
        settings: for what the page tells about itself.
        target: the file.
        count: the number of rows on the page; None: all.
    """
    check_page_target(target)
    summary = summarise(data, pipeline)
    about = {
        "data": ", ".join(map(str, as_sources(data))),
        "student": settings.student,
        "formatter": settings.formatter,
        "labeler": settings.labeler,
    }
    shown = write_preview(show_data(data, pipeline, count), summary, target, about)
    return f"{target}: {shown} of {counted(summary.rows, 'row')}, {summary.skipped} of all would be skipped"
