"""Several students side by side: each against its base, and each against the first, on the same questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.comparison.evaluate import Compared, Memo, Watch, compare_run, held_out_of
from distill.comparison.measure import Progress
from distill.comparison.metrics import METRICS, Columns, Measured
from distill.comparison.result import Comparison, Difference, Metric
from distill.comparison.results import Note
from distill.comparison.settings import CompareSettings
from distill.errors import UsageError
from distill.pages import fragment
from distill.plugins import PluginManager, make_plugin_manager
from distill.runs.run import Run, open_run
from distill.transcripts.sources import Data, as_sources

if TYPE_CHECKING:
    import pandas

_OWN = ("out",)
"""Settings that are other in every run, and tell nothing about the student."""


@dataclass(frozen=True, slots=True)
class StudentDifferences:
    """One student minus the first, over the questions that both were asked.

    Attributes:
        run, first: the run folders.
        questions: how many.
        differences: one per metric that can be compared.
    """

    run: str
    first: str
    questions: int
    differences: Sequence[Difference]


@dataclass(frozen=True)
class Comparisons:
    """Several students compared. In a notebook they show themselves as one table.

    Attributes:
        comparisons: each student with its base, in the order they were named.
        between: each other student minus the first.
        settings: name → value per run, of the settings in which the runs differ.
    """

    comparisons: Sequence[Comparison]
    between: Sequence[StudentDifferences]
    settings: Mapping[str, Sequence[Any]]

    @property
    def metrics(self) -> list[Metric]:
        """What was measured of any of them, in the order to show it."""
        found = {metric.name for one in self.comparisons for metric in one.metrics}
        return [metric for metric in METRICS if metric.name in found]

    def to_json(self, *, indent: int | None = None) -> str:
        """All of it as JSON, ASCII only, without a newline at its end."""
        return json.dumps(asdict(self), allow_nan=False, indent=indent)

    def to_pandas(self) -> pandas.DataFrame:
        """A row per student: its verdict, its metrics, and the settings in which the runs differ."""
        import pandas

        rows = []
        for n, one in enumerate(self.comparisons):
            row: dict[str, Any] = {"run": one.run, "verdict": one.verdict}
            row |= {name: values[n] for name, values in self.settings.items()}
            for metric in one.metrics:
                value = one.value("student", metric.name)
                row[metric.name] = None if value is None else value.value
            rows.append(row)
        frame: pandas.DataFrame = pandas.DataFrame(rows)
        return frame

    def _repr_html_(self) -> str:
        return fragment("students", found=self)


def compare_runs(
    runs: Sequence[str | Path],
    data: Data = (),
    manager: PluginManager | None = None,
    settings: CompareSettings = CompareSettings(),  # noqa: B008 - it is frozen
    *,
    note: Note = lambda text: None,
    on_progress: Progress | None = None,
) -> Comparisons:
    """Compare several students, each with its base and with the first student.

    A base that is the same for several students, and is asked the same tokens, is measured once. Answers of a teacher
    or a judge are kept in the first run.

    Args:
        runs: run folders whose training is finished.
        data: held-out conversations; none: those that training left in the first run. A student that was trained on
            them is named in its comparison's warnings.
        manager, settings, note, on_progress: as for `compare`.

    Raises:
        UsageError: as for `compare`, or the same run is named twice.
    """
    opened, manager = [open_run(run) for run in runs], manager or make_plugin_manager()
    places = [run.path.resolve() for run in opened]
    if twice := next((run for run, place in zip(opened, places, strict=True) if places.count(place) > 1), None):
        raise UsageError(f"{twice.path} is named twice", "name each run once")
    sources = as_sources(data) or (held_out_of(opened[0]),)
    settings = settings.named(manager)
    memo: Memo = {}
    compared = [
        compare_run(run, sources, manager, settings, Watch(note, on_progress), paid=opened[0].paths, memo=memo)
        for run in opened
    ]
    return Comparisons(
        [one.comparison for one in compared],
        [_between(compared[0], other, settings.seed) for other in compared[1:]],
        differing_settings(opened),
    )


def _between(first: Compared, other: Compared, seed: int) -> StudentDifferences:
    """One student minus the first, on the questions that both could be asked."""
    ours, theirs = (one.places() for one in (other, first))
    both = [place for place in theirs if place in ours]
    rows = {"other": [ours[place] for place in both], "first": [theirs[place] for place in both]}
    tokens = [
        [compared.questions.tokens["student"][n] for n in rows[name]]
        for name, compared in (("other", other), ("first", first))
    ]
    conversations = [first.questions.conversations[n] for n in rows["first"]]
    columns = {
        "other": _chosen(other.results["student"].columns, rows["other"]),
        "first": _chosen(first.results["student"].columns, rows["first"]),
    }
    measured = Measured(columns, conversations, seed)
    found = measured.differences("other", "first", tokens[0] == tokens[1])
    return StudentDifferences(other.comparison.run, first.comparison.run, len(both), found)


def _chosen(columns: Columns, rows: Sequence[int]) -> Columns:
    return {name: ([top[n] for n in rows], [bottom[n] for n in rows]) for name, (top, bottom) in columns.items()}


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings in which runs differ: name → value per run."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _OWN)
    found = {name: [run.manifest.value(name) for run in runs] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}
