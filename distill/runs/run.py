"""Reading a run folder: `open_run(path)` hands out everything a run knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from distill.errors import DataError, DistillError, UsageError
from distill.files.atomic import whole_file
from distill.files.jsonl import read_rows
from distill.files.nearby import did_you_mean
from distill.pages import fragment
from distill.pages.charts import curves
from distill.plugins import PluginManager
from distill.runs.layout import RunPaths, is_run
from distill.runs.manifest import DataFile, RunManifest, Setting
from distill.runs.report import TrainReport
from distill.transcripts.reader import Reader, make_reader, read_transcripts
from distill.types import Transcript

if TYPE_CHECKING:
    import pandas

_TEMPLATE_FORMAT = "chat-template"
"""The formatter that asks a model by the template saved with it."""

_ROWS_FOR_TEACHERS = 1000


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The format to ask a model in.

    Attributes:
        name: a formatter's name.
        options: its options.
        template: the chat template saved with the model; None where the format is a plugin's that has none, or the
            model is no run's.
    """

    name: str = _TEMPLATE_FORMAT
    options: Mapping[str, Any] = field(default_factory=dict)
    template: Path | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that was not trained: its id, its `file:line`, the reason, and the reason's code."""

    id: str
    source: str
    reason: str
    code: str = "skipped"


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        path: the run folder.
        manifest: its checked manifest.
    """

    path: Path
    manifest: RunManifest

    @property
    def paths(self) -> RunPaths:
        """Where its files are."""
        return RunPaths(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the student is there."""
        return self.paths.model.is_dir()

    @property
    def model_dir(self) -> Path:
        """The student: a folder that plain transformers loads.

        Raises:
            UsageError: the training was not finished.
        """
        if not self.is_finished:
            raise UsageError(
                f"run {str(self.path)!r} has no finished model", "finish its training first: `distill train … --resume`"
            )
        return self.paths.model

    @property
    def adapter_dir(self) -> Path | None:
        """The LoRA adapter; None where all weights were trained."""
        return self.paths.adapter if self.paths.adapter.is_dir() else None

    @property
    def base(self) -> str:
        """The model it was trained from, as the user named it."""
        return str(self.manifest.value("student"))

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Name → value and origin."""
        return self.manifest.settings

    @property
    def report(self) -> TrainReport:
        """The counts, and the result once it is finished."""
        return self.manifest.report

    @property
    def chat_format(self) -> ChatFormat:
        """The format the student was trained in: the template saved with it, or the plugin's."""
        template = self.paths.template
        if template.is_file():
            return ChatFormat(template=template)
        return ChatFormat(self.manifest.value("formatter"), self.manifest.value("formatter-options", {}))

    @property
    def data(self) -> Sequence[DataFile]:
        """The files it was trained on, with their hashes."""
        return self.manifest.data

    def reader(self, manager: PluginManager | None = None) -> Reader:
        """What reads the rows of its data as the training did.

        Args:
            manager: the plugins, whose data formats the data may be in; None: a fresh manager.
        """
        return make_reader(
            self.manifest.value("from"),
            manager,
            split_thinking=self.manifest.value("split-thinking", False),
            ignored=tuple(self.manifest.value("ignore-columns", ())),
        )

    @property
    def teachers(self) -> list[str]:
        """The teachers whose answers it was trained on, as the first transcripts name them; empty if none does."""
        found: dict[str, None] = {}
        for one in self.data:
            try:
                for _, row in islice(read_rows(one.file), _ROWS_FOR_TEACHERS):
                    metadata = row.get("metadata")
                    teacher = metadata.get("teacher") if isinstance(metadata, Mapping) else None
                    if isinstance(teacher, str) and teacher:
                        found.setdefault(teacher)
            except DistillError:  # it is gone, or no JSON lines: then it names nobody
                continue
        return list(found)

    def held_out(self) -> Iterator[Transcript]:
        """The conversations that were kept from training; none without `--hold-out`."""
        if self.paths.held_out.is_file():
            yield from read_transcripts(self.paths.held_out, "canonical")

    def skipped(self) -> Iterator[SkippedRow]:
        """The rows that were not trained, with their reasons."""
        if not self.paths.skipped.is_file():
            return
        for source, row in read_rows(self.paths.skipped):
            try:
                yield SkippedRow(**row)
            except TypeError:
                raise DataError(f"{source}: not a skipped row", "restore the file from a backup") from None

    def metrics(self) -> list[dict[str, float]]:
        """The logged steps: `step`, `loss`, `learning_rate`, …; evaluations: `step`, `eval_loss`, `eval_agreement`."""
        return read_metrics(self.paths.metrics)

    def keep_comparison(self, text: str) -> None:
        """Write the last comparison of the student, as JSON, into the run folder."""
        self.paths.comparison.parent.mkdir(exist_ok=True)
        with whole_file(self.paths.comparison) as file:
            file.write(text + "\n")

    def _repr_html_(self) -> str:
        return fragment("run", run=self, curve=curves(self.losses()))

    def losses(self) -> dict[str, list[tuple[float, float]]]:
        """Training loss and held-out loss by step; see `loss_series`."""
        return loss_series(self.metrics())

    def to_pandas(self) -> pandas.DataFrame:
        """The logged steps as a data frame."""
        import pandas

        return cast("pandas.DataFrame", pandas.DataFrame(self.metrics()))


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Args:
        path: what `distill train --out` made.

    Raises:
        UsageError: it is not a run folder.
        DataError: its manifest is damaged.
    """
    path = Path(path).expanduser()
    if not is_run(path):
        hint = did_you_mean(path, is_run) or "give the folder that `distill train --out` made"
        raise UsageError(f"{str(path)!r} is not a run folder", hint)
    return Run(path, RunManifest.read(RunPaths(path).manifest))


def saved_format(model: str | Path) -> ChatFormat:
    """The format to ask a model in: a run's own, and the saved chat template for any other model."""
    return open_run(model).chat_format if is_run(model) else ChatFormat()


def loss_series(rows: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """The training loss and, where it was evaluated, the held-out loss, by step."""
    keys = {"training": "loss", "held out": "eval_loss"}
    return {name: [(row["step"], row[key]) for row in rows if key in row] for name, key in keys.items()}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read logged steps; a last line that a kill cut off does not count.

    Raises:
        DistillError: the file is damaged.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DistillError(f"{path} is damaged", "restore it from a backup, or remove the folder") from error
