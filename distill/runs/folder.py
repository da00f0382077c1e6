"""Writing a run folder: manifest, metrics, skipped and held-out rows, the student."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.errors import DataError, UsageError
from distill.files.atomic import naming, whole_file, whole_folder
from distill.files.jsonl import dumps
from distill.pages import write_page
from distill.runs.checkpoints import checkpoints_in, complete_checkpoints, remove
from distill.runs.layout import RunPaths, is_run
from distill.runs.manifest import RunManifest
from distill.runs.run import SkippedRow, read_metrics
from distill.transcripts.rows import transcript_to_dict
from distill.types import Transcript


class RunFolder:
    """A run folder that is being written.

    Every file and folder appears whole; the student comes last, but for the manifest's final state.

    Attributes:
        path: the run folder; it may not exist yet.
        paths: where its parts are.
    """

    def __init__(self, path: Path):
        self.path = path
        self.paths = RunPaths(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.paths.checkpoints

    def check_free(self) -> None:
        """Refuse a folder that holds a run whose work would be lost, or anything that is not a run.

        Raises:
            UsageError: tells what is there.
        """
        self._check_is_run()
        if self.is_finished():
            raise UsageError(f"{self.path} already holds a finished run", "choose another --out, or remove it")
        if complete := complete_checkpoints(self.checkpoints):
            raise UsageError(
                f"{self.path} holds a training that was stopped after {complete[0].name}",
                "--resume continues it; to start over, remove the folder or choose another --out",
            )

    def is_finished(self) -> bool:
        """Whether the student is there: it appears whole, when training is over."""
        return self.paths.model.exists()

    def manifest(self) -> RunManifest | None:
        """The manifest; None where no run was begun.

        Raises:
            UsageError: the folder is not a run.
            DataError: the manifest is damaged.
        """
        self._check_is_run()
        return RunManifest.read(self.paths.manifest) if is_run(self.path) else None

    def start(self, manifest: RunManifest, skipped: Iterable[SkippedRow], resume_step: int | None) -> None:
        """Write the manifest and the skipped rows, before the first step.

        Args:
            manifest: what is going to be trained.
            skipped: the rows that will not be trained.
            resume_step: the step that training resumes from: metrics of later ones will be measured again. None: what
                an unfinished run left is replaced.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        manifest.write(self.paths.manifest)  # first: it makes the folder a run, however soon this is killed
        for name in (self.paths.model.name, self.paths.adapter.name):
            for half in self.path.glob(f".{name}-*"):  # a kill interrupted their saving
                shutil.rmtree(half, ignore_errors=True)
        kept = [] if resume_step is None else [row for row in self.metric_rows() if row["step"] <= resume_step]
        _write(self.paths.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        _write(self.paths.skipped, "".join(dumps(asdict(row)) + "\n" for row in skipped))

    def write_held_out(self, transcripts: Iterable[Transcript], count: int) -> None:
        """Write the conversations that are kept from training; without any, the file of an earlier run is removed.

        Args:
            transcripts: are written as they come.
            count: how many there must be.

        Raises:
            DataError: there are more or fewer: the data changed while they were read.
        """
        if not count:
            self.paths.held_out.unlink(missing_ok=True)
            return
        with whole_file(self.paths.held_out) as file:
            for transcript in transcripts:
                file.write(dumps(transcript_to_dict(transcript)) + "\n")
                count -= 1
            if count:
                raise DataError("the data changed while they were read", "start again")

    def metric_rows(self) -> list[dict[str, float]]:
        """The logged steps; a last line that a kill cut off does not count."""
        return read_metrics(self.paths.metrics)

    @contextmanager
    def metrics(self) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Give a function that logs a step, readable at once."""
        with open(self.paths.metrics, "a", encoding="utf-8") as file:

            def write(row: Mapping[str, float]) -> None:
                with naming(self.paths.metrics):
                    file.write(json.dumps(dict(row)) + "\n")
                    file.flush()

            yield write

    def saving_student(self) -> AbstractContextManager[Path]:
        """Give a folder to save the student into, which becomes the run's when the block ends well."""
        return whole_folder(self.paths.model)

    def saving_adapter(self) -> AbstractContextManager[Path]:
        """As `saving_student`, for a LoRA adapter; one left by a training that was killed is replaced."""
        shutil.rmtree(self.paths.adapter, ignore_errors=True)
        return whole_folder(self.paths.adapter)

    def write_pages(self, card: str, page: str) -> None:
        """Write the model card (Markdown) and the report (HTML)."""
        _write(self.paths.card, card)
        write_page(self.paths.page, page)

    def finish(self, manifest: RunManifest, *, keep_checkpoints: bool) -> None:
        """Remove the checkpoints that nobody asked to keep, and write the final manifest."""
        self.paths.best.unlink(missing_ok=True)
        if not keep_checkpoints:
            for checkpoint in checkpoints_in(self.checkpoints):
                remove(checkpoint)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()
        manifest.write(self.paths.manifest)

    def write_recipe(self, text: str, resolved: Mapping[str, Any]) -> None:
        """Put the recipe, and what it resolved to, beside the student."""
        _write(self.paths.recipe, text)
        _write(self.paths.resolved_recipe, json.dumps(resolved, ensure_ascii=False, indent=1) + "\n")

    def _check_is_run(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file", "--out names a folder")
        if is_run(self.path) or not self.path.is_dir():
            return
        half_written = f".{self.paths.manifest.name}.tmp"  # it was killed at once
        if any(path.name != half_written for path in self.path.iterdir()):
            raise UsageError(f"{self.path} holds something that is not a run", "choose another --out")


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text)
