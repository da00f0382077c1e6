"""Is the student better than its base, and as good as its teacher?

Measured on conversations that neither was trained on.
"""

from distill.comparison.evaluate import compare
from distill.comparison.result import Comparison
from distill.comparison.settings import CompareSettings

__all__ = ["CompareSettings", "Comparison", "compare"]
