"""Is the student better than its base, and as good as its teacher?

Measured on conversations that none of them was trained on.
"""

from distill.compare.result import Comparison
from distill.compare.run import as_json, compare
from distill.compare.settings import CompareSettings

__all__ = ["CompareSettings", "Comparison", "as_json", "compare"]
