"""Collecting: prompts × teacher → transcripts, with no paid answer lost or bought twice."""

from distill.collect.run import CollectSummary, collect
from distill.collect.teachers import NamedTeacher, make_teacher

__all__ = ["CollectSummary", "NamedTeacher", "collect", "make_teacher"]
