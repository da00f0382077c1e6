"""Training: from transcripts to a run folder with a student in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.lazy import lazily
from distill.runs.report import MemoryEstimate, TrainReport
from distill.training.settings import LoraSettings, TrainSettings

if TYPE_CHECKING:
    from distill.training.fine_tune import train

__all__ = [
    "LoraSettings",
    "MemoryEstimate",
    "TrainReport",
    "TrainSettings",
    "train",
]

__getattr__ = lazily(
    __name__,
    {
        "train": "distill.training.fine_tune",
    },
)
