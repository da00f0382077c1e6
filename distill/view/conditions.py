"""Numbers of rows as a reader asks for them: `logprob < -1`, `score >= 0.5`, `usage.completion_tokens > 900`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import UsageError

_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*([\w.-]*\w)\s*(?:(<=|>=|<|>|=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*)?", re.I)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a row's number must be.

    Attributes:
        name: of the number, see `number_of`.
        sign: how it compares with `value`; empty: the row only has to have it.
        value: what it compares with.
    """

    name: str
    sign: str = ""
    value: float = 0.0

    def fits(self, number: float | None) -> bool:
        """Whether a number fits; None, a row without it, never does."""
        return number is not None and (not self.sign or _SIGNS[self.sign](number, self.value))


def parse_condition(text: str) -> Condition | None:
    """Read a condition; None for an empty text.

    Raises:
        UsageError: it is none.
    """
    if not text.strip():
        return None
    found = _CONDITION.fullmatch(text)
    try:
        return Condition(found[1], found[2] or "", float(found[3] or 0)) if found else _refuse(text)
    except ValueError:
        return _refuse(text)


def _refuse(text: str) -> Condition:
    raise UsageError(f"{text!r} is not a condition", "write NAME < NUMBER, such as logprob < -1")


def number_of(row: Mapping[str, Any], name: str) -> float | None:
    """A number of a row; None where it has none of that name.

    Args:
        row: of a file, or a model's answer in a comparison.
        name: `logprob`, the mean log probability of the teacher's tokens; `tokens`, the number of them; or a path of
            keys, `metadata.score`, where `metadata.` may be left out.
    """
    metadata = row.get("metadata")
    places = [row, metadata] if isinstance(metadata, Mapping) else [row]
    for place in places:
        value: Any = place
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    if name == "logprob":
        known = [one for answer in teacher_tokens(row) for _, one in answer if one is not None]
        return sum(known) / len(known) if known else None
    if name == "tokens":
        return _tokens(row, places[-1])
    return None


def _tokens(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> float | None:
    usage = metadata.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    if isinstance(counted, int):
        return float(counted)
    return float(sum(map(len, teacher_tokens(row)))) or None


def teacher_tokens(row: Mapping[str, Any]) -> list[list[tuple[str, float | None]]]:
    """The teacher's tokens of each answer with their log probabilities, where `metadata.logprobs` has them."""
    metadata = row.get("metadata")
    answers = metadata.get("logprobs") if isinstance(metadata, Mapping) else None
    return [_answer(one) for one in answers if isinstance(one, Mapping)] if isinstance(answers, list) else []


def _answer(logprobs: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    tokens, values = logprobs.get("tokens"), logprobs.get("logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return []
    return [(_text(token), _known(value)) for token, value in zip(tokens, values, strict=False)]


def _text(token: Any) -> str:
    """A token's text; a piece of a character is stored as its bytes."""
    if isinstance(token, list) and all(isinstance(one, int) and 0 <= one < 256 for one in token):
        return bytes(token).decode("utf-8", "backslashreplace")
    return str(token)


def _known(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
