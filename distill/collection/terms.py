"""Under which terms a teacher's answers may be used, as far as its name tells."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """A provider's terms.

    Attributes:
        provider: who makes the model.
        summary: what they are known to limit.
        address: where they are.
    """

    provider: str
    summary: str
    address: str


_COMPETING = "limit the use of answers to develop models that compete with its own"

_KNOWN = (
    (r"gpt-(?!oss|neo|j|2)|chatgpt|o\d(-|$)", Terms("OpenAI", _COMPETING, "https://openai.com/policies/")),
    (r"claude", Terms("Anthropic", _COMPETING, "https://www.anthropic.com/legal/")),
    (r"gemini", Terms("Google", _COMPETING, "https://ai.google.dev/gemini-api/terms")),
    (r"grok", Terms("xAI", _COMPETING, "https://x.ai/legal/")),
    (
        r"(meta-)?llama",
        Terms(
            "Meta", "ask that models made with its answers carry Llama in their name", "https://www.llama.com/license/"
        ),
    ),
)
"""What a model's name begins with → the terms of its provider. A hint to read them, not legal advice."""


def terms_of(teacher: str) -> Terms | None:
    """The terms of a teacher's provider; None where its name does not tell.

    Args:
        teacher: as transcripts name it: `openai:gpt-5-mini`, `openai:meta-llama/Llama-3.1-8B`, a folder.
    """
    model = teacher.partition(":")[2].lower().rpartition("/")[2]
    return next((terms for pattern, terms in _KNOWN if re.match(pattern, model)), None)


def terms_text(teacher: str) -> str:
    """What a card says of a teacher's terms."""
    terms = terms_of(teacher)
    if terms is None:
        return "terms not known to distill: see the licence of the model and the terms of whoever serves it"
    return f"{terms.provider}'s terms {terms.summary}, as far as distill knows: read them at {terms.address}"
