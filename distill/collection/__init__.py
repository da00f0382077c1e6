"""Collecting: prompts × teacher → transcripts, with no paid answer lost or bought twice."""

from distill.collection.batch import BatchSummary, read_batch, write_batch
from distill.collection.collector import collect
from distill.collection.estimate import Estimate, estimate
from distill.collection.settings import CollectSettings
from distill.collection.summary import CollectSummary
from distill.collection.teachers import NamedTeacher, make_teacher

__all__ = [
    "BatchSummary",
    "CollectSettings",
    "CollectSummary",
    "Estimate",
    "NamedTeacher",
    "collect",
    "estimate",
    "make_teacher",
    "read_batch",
    "write_batch",
]
