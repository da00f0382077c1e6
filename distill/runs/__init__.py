"""Run folders: what `train` writes and everything else reads.

Layout, types, writer and reader are here together; no other module knows the name of a file in a run folder, or a key
of its `run.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.lazy import lazily

if TYPE_CHECKING:
    from distill.runs.layout import RunPaths, is_run
    from distill.runs.manifest import RunManifest, Setting
    from distill.runs.report import MemoryEstimate, TrainReport
    from distill.runs.run import ChatFormat, Run, SkippedRow, open_run

__all__ = [
    "ChatFormat",
    "MemoryEstimate",
    "Run",
    "RunManifest",
    "RunPaths",
    "Setting",
    "SkippedRow",
    "TrainReport",
    "is_run",
    "open_run",
]

__getattr__ = lazily(
    __name__,
    {
        "RunPaths": "distill.runs.layout",
        "is_run": "distill.runs.layout",
        "RunManifest": "distill.runs.manifest",
        "Setting": "distill.runs.manifest",
        "MemoryEstimate": "distill.runs.report",
        "TrainReport": "distill.runs.report",
        "ChatFormat": "distill.runs.run",
        "Run": "distill.runs.run",
        "SkippedRow": "distill.runs.run",
        "open_run": "distill.runs.run",
    },
)
