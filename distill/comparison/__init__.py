"""Is the student better than its base, and as good as its teacher?

Measured on conversations that neither was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.comparison.settings import CompareSettings
from distill.lazy import lazily

if TYPE_CHECKING:
    from distill.comparison.evaluate import compare
    from distill.comparison.result import Comparison
    from distill.comparison.several import Comparisons, compare_runs

__all__ = [
    "CompareSettings",
    "Comparison",
    "Comparisons",
    "compare",
    "compare_runs",
]

__getattr__ = lazily(
    __name__,
    {
        "compare": "distill.comparison.evaluate",
        "Comparison": "distill.comparison.result",
        "Comparisons": "distill.comparison.several",
        "compare_runs": "distill.comparison.several",
    },
)
