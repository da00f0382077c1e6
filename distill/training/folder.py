"""The run folder: manifest, metrics, skipped rows, the student, and pages about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.dataset.prepare import Prepared
from distill.errors import DataError, DistillError, UsageError
from distill.files.atomic import utc_now, whole_file, whole_folder
from distill.files.jsonl import dumps
from distill.models.load import quiet
from distill.training.checkpoints import MARKER, checkpoints_in, remove
from distill.training.report import model_card, report_page
from distill.training.settings import TrainReport, TrainSettings
from distill.transcripts.rows import transcript_to_dict
from distill.types import Transcript

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


HELD_OUT = "held_out.jsonl"
"""In a run folder: the conversations that were kept from training."""


class RunFolder:
    """One training run on disk. `model/` appears whole, and last but for the manifest's final state."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"

    def check_free(self) -> None:
        """Refuse a folder that holds a run whose work would be lost, or anything that is not a run.

        Raises:
            UsageError: says what is there.
        """
        self._check_is_run()
        if self.is_finished():
            raise UsageError(f"{self.path} already holds a finished run", "choose another --out, or remove it")
        complete = [path.name for path in checkpoints_in(self.checkpoints) if (path / MARKER).is_file()]
        if complete:
            raise UsageError(
                f"{self.path} holds a training that was stopped after {complete[0]}",
                "--resume goes on from there; to start over, remove the folder or choose another --out",
            )

    def is_finished(self) -> bool:
        """Whether the student is there: it appears whole, when training is over."""
        return (self.path / "model").exists()

    def manifest(self) -> dict[str, Any] | None:
        """What `run.json` says; None where no run was begun.

        Raises:
            UsageError: the folder is not a run.
            DistillError: the manifest cannot be read.
        """
        self._check_is_run()
        path = self.path / "run.json"
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            _ = found["state"], found["started"], found["settings"], TrainReport(**found["report"])
        except (ValueError, KeyError, TypeError) as error:
            raise DistillError(f"{path} is damaged", "remove the folder to start over") from error
        return found

    def start(self, manifest: Mapping[str, Any], prepared: Prepared, resume_step: int | None) -> None:
        """Write the manifest and the skipped rows, before the first step.

        Args:
            manifest: of `describe`.
            prepared: whose skipped rows are written.
            resume_step: the step that training goes on from: metrics of later ones will be measured again. None: what
                an unfinished run left is replaced.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_manifest(manifest)  # first: it makes the folder a run, however soon this is killed
        for half in (*self.path.glob(".model-*"), *self.path.glob(".adapter-*")):  # a kill stopped their saving
            shutil.rmtree(half, ignore_errors=True)
        kept = [] if resume_step is None else [row for row in self.metric_rows() if row["step"] <= resume_step]
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        self._write("skipped.jsonl", "".join(dumps(asdict(row)) + "\n" for row in prepared.skipped))

    def write_held_out(self, transcripts: Iterable[Transcript], count: int) -> None:
        """Write the conversations that are kept from training; a file of a run before is gone where there are none.

        Args:
            transcripts: are written as they come.
            count: how many there must be.

        Raises:
            DataError: there are others: the data were changed while they were read.
        """
        path = self.path / HELD_OUT
        if not count:
            path.unlink(missing_ok=True)
            return
        with whole_file(path) as file:
            for transcript in transcripts:
                file.write(dumps(transcript_to_dict(transcript)) + "\n")
                count -= 1
            if count:
                raise DataError("the data were changed while they were read", "start again")

    def metric_rows(self) -> list[dict[str, float]]:
        """The rows of `metrics.jsonl`; a last line that a kill cut off does not count."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise DistillError(f"{path} is damaged", "restore it from a backup, or remove the folder") from error

    @contextmanager
    def metrics(self) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Give a function that appends a row to `metrics.jsonl`, readable at once."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:

            def write(row: Mapping[str, float]) -> None:
                file.write(json.dumps(dict(row)) + "\n")
                file.flush()

            yield write

    def save_adapter(self, model: Any) -> Path:
        """Save a LoRA adapter by itself, beside the merged student; gives its folder."""
        adapter = self.path / "adapter"
        shutil.rmtree(adapter, ignore_errors=True)  # of a training that was killed before its student was whole
        with quiet(), whole_folder(adapter) as made:
            model.save_pretrained(made)
        return adapter

    def save_student(
        self,
        model: PreTrainedModel,
        state_dict: Mapping[str, Tensor] | None,
        tokenizer: PreTrainedTokenizerFast,
        card: str,
    ) -> None:
        """Save the student, whole or not at all."""
        with quiet(), whole_folder(self.path / "model") as made:
            model.save_pretrained(made, state_dict=state_dict)
            tokenizer.save_pretrained(made)
            (made / "README.md").write_text(card, encoding="utf-8")

    def finish(self, settings: TrainSettings, report: TrainReport) -> None:
        """Write the pages, remove the checkpoints that nobody asked to keep, and complete the manifest."""
        self._write("README.md", model_card(settings, report))
        manifest = self.manifest() or {}
        manifest.update(state="finished", finished=utc_now(), report=asdict(report))
        self._write("report.html", report_page(manifest, self.metric_rows()))
        if settings.save_total_limit is None:
            for checkpoint in checkpoints_in(self.checkpoints):
                remove(checkpoint)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()
        self._write_manifest(manifest)

    def _check_is_run(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file", "--out names a folder")
        if (self.path / "run.json").is_file() or not self.path.is_dir():
            return
        if any(path.name != ".run.json.tmp" for path in self.path.iterdir()):  # that one: it was killed at once
            raise UsageError(f"{self.path} holds something that is not a run", "choose another --out")

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._write("run.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        with whole_file(self.path / name) as file:
            file.write(text)
