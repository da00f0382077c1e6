"""The tokenizers of `distill.testing`, under the name the tests know them by."""

from distill.testing.tokenizers import CHATML, EXACT, GEMMA, LATE_END, LLAMA2, LLAMA3, QWEN3
from distill.testing.tokenizers import TOKENIZERS as ZOO

__all__ = ["CHATML", "EXACT", "GEMMA", "LATE_END", "LLAMA2", "LLAMA3", "QWEN3", "ZOO"]
