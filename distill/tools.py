"""Tool definitions stand in a prompt as template text: what their strings may not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill.errors import DataError


def refuse_control_tokens(
    tools: Sequence[Mapping[str, Any]], ids: Mapping[str, int], control_ids: frozenset[int]
) -> None:
    """Refuse definitions in which a control token is spelled out: the tokenizer would read it as one.

    Args:
        tools: the definitions.
        ids: every added token's id.
        control_ids: the ids that steer the model.

    Raises:
        DataError: names the definition and the token.
    """
    words = [word.strip() for word, id in ids.items() if id in control_ids] if tools else []
    for number, tool in enumerate(tools):
        for text in _strings(tool):
            word = next((word for word in words if word in text), None)
            if word is not None:
                raise DataError(f"tool definition {number} holds {word!r}, a control token of this student")
            if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
                raise DataError(f"tool definition {number} has half a surrogate pair, which is no text")


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
