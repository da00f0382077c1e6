"""Training: from transcripts to a run folder with a student in it."""

from distill.train.run import train
from distill.train.settings import Estimate, LoraSettings, TrainReport, TrainSettings

__all__ = ["Estimate", "LoraSettings", "TrainReport", "TrainSettings", "train"]
