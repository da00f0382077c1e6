"""A trainer for distill that trains nothing: it writes the labelled tokens for axolotl, TRL and LLaMA-Factory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import distill


@dataclass(frozen=True)
class PretokenizedOptions:
    """Attributes:
    format: `jsonl`, which axolotl and `load_dataset("json")` read, or `arrow`, which LLaMA-Factory and
        `load_from_disk` read.
    """

    format: Literal["jsonl", "arrow"] = "jsonl"


class Pretokenized:
    """Writes rows `{input_ids, attention_mask, labels}` into the run folder."""

    def __init__(self, options: PretokenizedOptions):
        self.write = {"jsonl": _write_jsonl, "arrow": _write_arrow}[options.format]

    def plan(self, steps: int) -> distill.TrainPlan:
        """No step, so that `train --dry-run` estimates neither gradients nor activations."""
        return distill.TrainPlan(steps=0, optimizer_bytes=0)

    def train(self, job: distill.TrainJob, on_log: Callable[[Mapping[str, float]], None]) -> distill.TrainResult:
        """Write the job's examples; the model is left as it is. See `distill.Trainer`."""
        job.output_dir.mkdir(parents=True, exist_ok=True)
        path = self.write(job, job.output_dir)
        print(f"pretokenized: {len(job.examples)} rows in {path}", file=sys.stderr)
        return distill.TrainResult(steps=0, loss=None)


def _rows(job: distill.TrainJob) -> Iterator[dict[str, list[int]]]:
    for example in job.examples:
        mask = [1] * len(example.input_ids)
        yield {"input_ids": list(example.input_ids), "attention_mask": mask, "labels": list(example.labels)}


def _write_jsonl(job: distill.TrainJob, folder: Path) -> Path:
    path = folder / "tokenized.jsonl"
    with open(folder / ".tokenized.jsonl", "w", encoding="utf-8") as file:
        for row in _rows(job):
            file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return Path(file.name).replace(path)


def _write_arrow(job: distill.TrainJob, folder: Path) -> Path:
    from datasets import Dataset, DatasetDict
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    path = folder / "tokenized"
    rows = list(_rows(job))
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    DatasetDict({"train": Dataset.from_dict(columns)}).save_to_disk(path)
    return path


@distill.hookimpl
def register_trainers() -> list[distill.TrainerSpec]:
    """Offer `--trainer pretokenized`."""
    summary = "trains nothing: writes the labelled tokens for axolotl, TRL, LLaMA-Factory"
    return [distill.TrainerSpec("pretokenized", summary, build=Pretokenized, options=PretokenizedOptions)]
