"""Messages as chat templates expect them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from distill import DataError, Message, message_to_dict

Row = dict[str, Any]
"""A message as templates get it."""

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class CallShape(NamedTuple):
    """How a template wants tool calls.

    Attributes:
        text_arguments: arguments as JSON text, not as an object.
        short_ids: ids of nine letters and digits (Mistral).
    """

    text_arguments: bool = False
    short_ids: bool = False


def as_row(message: Message, index: int, shape: CallShape = CallShape()) -> Row:  # noqa: B008 - a constant
    """A message as templates expect it: no content is an empty text, and calls have the shape the template wants.

    Raises:
        DataError: a tool call has no function name.
    """
    row: Row = message_to_dict(message, without=("weight", "reasoning_details"))
    row["content"] = row["content"] or ""
    if message.tool_calls:
        row["tool_calls"] = [_call(call, index, shape) for call in message.tool_calls]
    if shape.short_ids and isinstance(row.get("tool_call_id"), str):
        row["tool_call_id"] = short_id(row["tool_call_id"])
    return row


def short_id(id: str) -> str:
    """A call id of nine letters and digits: the id itself if it is one, else made from it, always the same."""
    if _SHORT_ID.fullmatch(id):
        return id
    number = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")
    digits = []
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def _call(call: Mapping[str, Any], index: int, shape: CallShape) -> Row:
    """OpenAI's arguments are JSON text; most templates want the object. Text that is no JSON object stays text."""
    nested = isinstance(call.get("function"), Mapping)
    function = dict(call["function"] if nested else call)
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise DataError(f"message {index} has a tool call without a function name")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    if shape.text_arguments:
        function["arguments"] = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    elif isinstance(arguments, str):
        function["arguments"] = _parsed(arguments)
    made: Row = {**call, "function": function} if nested else function
    if shape.short_ids and isinstance(made.get("id"), str):
        made["id"] = short_id(made["id"])
    return made


def _parsed(arguments: str) -> Any:
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments
