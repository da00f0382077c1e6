"""Run folders without a training: a manifest that is whole, and whatever a test adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill.runs.manifest import BaseModel, DataFile, RunManifest, Setting
from distill.runs.report import TrainReport

REPORT = TrainReport("run", 9, 4, 2, 0, 0, 4, 100, 25, 3, loss=1.5, held_out_rows=3)


def write_run(path: Path, data: tuple[Path, ...] = (), **settings: Any) -> Path:
    """Write the manifest of a finished run, and three logged steps.

    Args:
        path: the run folder, made where it does not exist.
        data: the files it says it was trained on.
        settings: what it says it was trained with.
    """
    path.mkdir(parents=True, exist_ok=True)
    values = {"student": "the base", "formatter": "chat-template", "formatter-options": {}, "seed": 0, **settings}
    manifest = RunManifest(
        state="finished",
        started="2026-01-01T00:00:00Z",
        settings={name: Setting(value) for name, value in values.items()},
        data=tuple(DataFile(str(file), "") for file in data),
        student=BaseModel(values["student"], None),
        report=REPORT,
    )
    manifest.write(path / "run.json")
    (path / "metrics.jsonl").write_text("".join(json.dumps({"step": n, "loss": 3.0 / n}) + "\n" for n in (1, 2, 3)))
    return path
