"""Text of others: whether it is text at all, and how it is made harmless to look at."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")


def has_half_surrogate(text: str) -> bool:
    """Whether a string holds half of a surrogate pair: valid in JSON, but no text, and nothing can encode it."""
    return not text.isascii() and _HALF.search(text) is not None


def printable(text: str, newlines: bool = False) -> str:
    """Make text of a teacher, a student or a file harmless: control characters and bidi overrides become escapes.

    Args:
        text: anything.
        newlines: keep line breaks and tabs as they are.
    """
    return "".join(
        char if char.isprintable() or (newlines and char in "\n\t") else char.encode("unicode_escape").decode()
        for char in text
    )
