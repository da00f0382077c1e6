"""Training: from transcripts to a run folder with a student in it."""

from distill.runs.report import MemoryEstimate, TrainReport
from distill.training.fine_tune import train
from distill.training.settings import LoraSettings, TrainSettings

__all__ = ["LoraSettings", "MemoryEstimate", "TrainReport", "TrainSettings", "train"]
