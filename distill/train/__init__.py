"""Training: from transcripts to a run folder with a student in it."""

from distill.train.run import train
from distill.train.settings import TrainReport, TrainSettings

__all__ = ["TrainReport", "TrainSettings", "train"]
