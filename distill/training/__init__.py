"""Training: from transcripts to a run folder with a student in it."""

from distill.training.fine_tune import train
from distill.training.settings import Estimate, LoraSettings, TrainReport, TrainSettings

__all__ = ["Estimate", "LoraSettings", "TrainReport", "TrainSettings", "train"]
