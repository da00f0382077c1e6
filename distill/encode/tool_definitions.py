"""Tool definitions are rendered as template text, so their strings may not spell control tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from distill.errors import DataError
from distill.files.text import check_text


def refuse_control_tokens(tools: Sequence[Mapping[str, Any]], holds_control: Callable[[str], bool]) -> None:
    """Refuse definitions in which a control token is spelled out: the tokenizer would read it as one.

    Args:
        tools: the definitions.
        holds_control: whether a text holds the spelling of a control token.

    Raises:
        DataError: names the definition and the text.
    """
    for number, tool in enumerate(tools):
        for text in _strings(tool):
            if holds_control(text):
                raise DataError(f"tool definition {number} spells out a control token of this student: {text[:60]!r}")
            check_text(text, f"tool definition {number}")


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
