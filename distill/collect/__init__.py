"""Collecting: prompts × teacher → transcripts, with no paid answer lost or bought twice."""

from distill.collect.batch import BatchSummary, read_batch, write_batch
from distill.collect.estimate import Estimate, estimate
from distill.collect.run import CollectSummary, Limits, collect
from distill.collect.teachers import NamedTeacher, make_teacher

__all__ = [
    "BatchSummary",
    "CollectSummary",
    "Estimate",
    "Limits",
    "NamedTeacher",
    "collect",
    "estimate",
    "make_teacher",
    "read_batch",
    "write_batch",
]
