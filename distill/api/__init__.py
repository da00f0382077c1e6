"""The Python API: every command as a function, with typed arguments and results.

`import distill` offers them as `distill.collect(…)` and so on. The options have the names and defaults of the command
line; the parameters are written from the settings classes by cog (`make docs`).
"""

from distill.api.data import check, collect, convert, score, show
from distill.api.students import (
    compare,
    compare_runs,
    export,
    generate,
    load_chat_model,
    open_chat,
    plan_training,
    trace,
    train,
)
from distill.api.whole import doctor, quickstart, run

__all__ = [
    "check",
    "collect",
    "compare",
    "compare_runs",
    "convert",
    "doctor",
    "export",
    "generate",
    "load_chat_model",
    "open_chat",
    "plan_training",
    "quickstart",
    "run",
    "score",
    "show",
    "trace",
    "train",
]
