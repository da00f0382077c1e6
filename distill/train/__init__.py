"""Training: from transcripts to a run folder with a student in it."""

from distill.train.run import TrainReport, TrainSettings, train

__all__ = ["TrainReport", "TrainSettings", "train"]
