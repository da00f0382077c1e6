"""Alpaca: `instruction`, `input` and `output`, with the `system` and `history` of LLaMA-Factory."""

from __future__ import annotations

from typing import Any

from distill import DataError, DialectSpec, Transcript
from distill.builtin.dialects.base import Row, list_of, second_of, with_id, with_system

_OUTPUTS = ("output", "response")  # Alpaca's, Dolly's
_INPUTS = ("input", "context")
_COLUMNS = ("id", "instruction", *_INPUTS, *_OUTPUTS, "system", "history", "tools", "functions", "metadata")


def _matches(row: Row) -> bool:
    return "instruction" in row and any(key in row for key in _OUTPUTS)


def _read(row: Row, where: str) -> dict[str, Any]:
    asked = [_text(row, ("instruction",), where), _text(row, _INPUTS, where)]
    messages = [
        *_history(row, where),
        {"role": "user", "content": "\n".join(text for text in asked if text)},  # as LLaMA-Factory joins them
        {"role": "assistant", "content": _text(row, _OUTPUTS, where)},
    ]
    return {
        "id": row.get("id"),
        "messages": with_system(row, messages, where),
        "tools": row.get("tools") or row.get("functions"),
        "metadata": {**second_of(row, _INPUTS), **second_of(row, _OUTPUTS)},
    }


def _text(row: Row, keys: tuple[str, ...], where: str) -> str:
    """The text under the first of the keys that the row has; "" for an input that is missing."""
    key = next((key for key in keys if row.get(key) is not None), None)
    if key is None:
        if keys == _INPUTS:
            return ""
        raise DataError(f"{where}: no `{keys[0]}`", 'Alpaca is {"instruction", "input", "output"}')
    text = row[key]
    if not isinstance(text, str):
        raise DataError(f"{where}: `{key}` is not a text")
    return text


def _history(row: Row, where: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    history = list_of(row, "history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError(f"{where}: `history` is not a list of pairs of texts: question, answer")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return messages


def _write(transcript: Transcript) -> dict[str, Any]:
    _check_texts(transcript)
    said = list(transcript.messages)
    system = said.pop(0).content if said[0].role == "system" else None
    while said and said[-1].role != "assistant":
        said.pop()  # nothing answers it
    if not said:
        raise DataError("Alpaca has no rows without an answer")
    if [message.role for message in said] != ["user", "assistant"] * (len(said) // 2):
        raise DataError("Alpaca has only user and assistant in turn")
    texts = [message.content for message in said]
    row = with_id(transcript, {"instruction": texts[-2], "input": "", "output": texts[-1]})
    if system:
        row["system"] = system
    if len(texts) > 2:
        row["history"] = [[texts[n], texts[n + 1]] for n in range(0, len(texts) - 2, 2)]
    return row


def _check_texts(transcript: Transcript) -> None:
    for message in transcript.messages:
        if message.role == "tool" or message.tool_calls:
            raise DataError("Alpaca has no tool calls and no tool messages")
        if message.content is None:
            raise DataError("Alpaca has no messages without text (a refusal)")


ALPACA = DialectSpec("alpaca", "instruction, input, output; system, history", _matches, _read, _COLUMNS, _write)
