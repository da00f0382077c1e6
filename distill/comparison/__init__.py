"""Is the student better than its base, and as good as its teacher?

Measured on conversations that neither was trained on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from distill.comparison.settings import CompareSettings

if TYPE_CHECKING:
    from distill.comparison.evaluate import compare
    from distill.comparison.result import Comparison
    from distill.comparison.several import Comparisons, compare_runs

# The command line needs the settings of every command, and the rest of one: it is imported when it is asked for.
_LAZY = {
    "compare": "distill.comparison.evaluate",
    "Comparison": "distill.comparison.result",
    "Comparisons": "distill.comparison.several",
    "compare_runs": "distill.comparison.several",
}

__all__ = ["CompareSettings", "Comparison", "Comparisons", "compare", "compare_runs"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
