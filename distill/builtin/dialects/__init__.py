"""Built-in data formats: distill's own, those of training data, and chats as other programs export them."""

from __future__ import annotations

from distill import DialectSpec, hookimpl
from distill.builtin.dialects.alpaca import ALPACA
from distill.builtin.dialects.messages import CANONICAL, OPENAI
from distill.builtin.dialects.prompt_completion import PROMPT_COMPLETION
from distill.builtin.dialects.sharegpt import SHAREGPT


@hookimpl
def register_dialects() -> list[DialectSpec]:
    """Offer the formats of training data, and of exported chats."""
    return [CANONICAL, OPENAI, SHAREGPT, ALPACA, PROMPT_COMPLETION]
