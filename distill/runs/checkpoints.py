"""The names of checkpoints: `RUN/checkpoints/checkpoint-STEP/`.

A checkpoint is complete when it holds `complete.json`, which is written last.
"""

from __future__ import annotations

import shutil
from pathlib import Path

MARKER = "complete.json"
"""The file that makes a checkpoint complete; it lists size and SHA-256 of every other file."""


def step_of(folder: Path) -> int:
    """`…/checkpoint-12` → 12."""
    return int(folder.name.rpartition("-")[2])


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, complete or not, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, newest first."""
    return [path for path in checkpoints_in(folder) if (path / MARKER).is_file()]


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint; one that is half removed no longer counts."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)
