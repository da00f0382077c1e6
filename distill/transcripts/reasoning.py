"""An answer's reasoning under every name in which servers send it, and reasoning in tags within the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distill.transcripts.parts import text_in
from distill.types import Message

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details")
"""Fields of a message that hold its reasoning; the first one that is set counts."""

_FIELDS = frozenset(REASONING_FIELDS)
_TAGS = "think|thinking|thought|reasoning"
_OPENING = re.compile(rf"\s*(?:<({_TAGS})>|\[THINK\])", re.IGNORECASE)
_CLOSING = re.compile(rf"</({_TAGS})>|\[/THINK\]", re.IGNORECASE)


def reasoning_in(message: Mapping[str, Any]) -> str | None:
    """The reasoning in a message's fields, as text; None where there is none."""
    if _FIELDS.isdisjoint(message):
        return None
    return next((text for name in REASONING_FIELDS if (text := text_in(message.get(name)))), None)


def has_thinking_tags(text: str) -> bool:
    """Whether an answer begins with reasoning in tags, or inside of it: `<think>…</think>`, `…</think>`."""
    return ("<" in text or "[" in text) and (_OPENING.match(text) is not None or _CLOSING.search(text) is not None)


def is_only_thinking(text: str) -> bool:
    """Whether a text begins with reasoning in tags, and nothing comes after it; or the reasoning never ends."""
    if _OPENING.match(text) is None:
        return False
    closing = _CLOSING.search(text)
    return closing is None or not text[closing.end() :].strip()


def split_thinking(message: Message) -> Message:
    """Move an answer's reasoning in tags to `reasoning_content`.

    An answer that starts inside of its reasoning (the opening tag was in the prompt) is split at the closing tag. One
    whose reasoning never ends, and one that has `reasoning_content` already, stays as it is.
    """
    text = message.content
    if message.role != "assistant" or not text or message.reasoning_content is not None:
        return message
    closing = _CLOSING.search(text)
    if closing is None:
        return message
    opening = _OPENING.match(text)
    start = opening.end() if opening else 0
    if start > closing.start():
        return message
    reasoning, answer = text[start : closing.start()].strip(), text[closing.end() :].lstrip()
    return replace(message, content=answer, reasoning_content=reasoning or None)
