"""Text of others made harmless to look at."""

from __future__ import annotations


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
