"""Collecting: prompts × teacher → transcripts, with no paid answer lost or bought twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.lazy import lazily

if TYPE_CHECKING:
    from distill.collection.batch import BatchSummary, read_batch, write_batch
    from distill.collection.collector import collect
    from distill.collection.cost_estimate import Estimate, estimate
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

__getattr__ = lazily(
    __name__,
    {
        "BatchSummary": "distill.collection.batch",
        "read_batch": "distill.collection.batch",
        "write_batch": "distill.collection.batch",
        "collect": "distill.collection.collector",
        "Estimate": "distill.collection.cost_estimate",
        "estimate": "distill.collection.cost_estimate",
        "CollectSettings": "distill.collection.settings",
        "CollectSummary": "distill.collection.summary",
        "NamedTeacher": "distill.collection.teachers",
        "make_teacher": "distill.collection.teachers",
    },
)
