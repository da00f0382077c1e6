"""Sanitising untrusted text: lone surrogates, control characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distill.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")


def has_lone_surrogate(text: str) -> bool:
    """Whether a string holds a lone surrogate: valid in JSON, but invalid Unicode that nothing can encode."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def check_text(text: str, where: str) -> None:
    """Refuse text with a lone surrogate.

    Raises:
        DataError: it holds one; starts with `where`.
    """
    if has_lone_surrogate(text):
        raise DataError(f"{where}: lone surrogate (invalid Unicode)", "replace it, e.g. with U+FFFD")


def clean_surrogates(value: Any) -> Any:
    """Replace each lone surrogate in a JSON value by U+FFFD.

    Args:
        value: strings, numbers, lists and objects, nested; it is not changed.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        if not has_lone_surrogate(value):
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # a pair becomes one character
    if isinstance(value, Mapping):
        return {clean_surrogates(key): clean_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_surrogates(item) for item in value]
    return value


def printable(text: str, newlines: bool = False) -> str:
    """Make untrusted text safe to print: control characters and bidirectional overrides become escapes.

    Args:
        text: of a teacher, a student or a file.
        newlines: keep line breaks and tabs as they are.
    """
    return "".join(
        char if char.isprintable() or (newlines and char in "\n\t") else char.encode("unicode_escape").decode()
        for char in text
    )


has_half_surrogate = has_lone_surrogate  # its name in 0.1
