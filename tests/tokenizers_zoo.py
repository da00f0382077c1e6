"""The tokenizers of `distill.testing`, under the name the tests know them by."""

from distill.testing.tokenizers import EXACT
from distill.testing.tokenizers import TOKENIZERS as ZOO

__all__ = ["EXACT", "ZOO"]
