"""Run folders: what `train` writes and everything else reads.

Layout, types, writer and reader are here together; no other module knows the name of a file in a run folder, or a key
of its `run.json`.
"""

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
