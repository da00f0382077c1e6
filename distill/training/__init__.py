"""Training: from transcripts to a run folder with a student in it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from distill.runs.report import MemoryEstimate, TrainReport
from distill.training.settings import LoraSettings, TrainSettings

if TYPE_CHECKING:
    from distill.training.fine_tune import train

# The command line needs the settings of every command, and the rest of one: it is imported when it is asked for.
_LAZY = {"train": "distill.training.fine_tune"}

__all__ = ["LoraSettings", "MemoryEstimate", "TrainReport", "TrainSettings", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
