"""A teacher's thinking, under every name in which servers send it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NAMES = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details")
"""Fields of a message that hold its thinking."""
_MEDIA = ("images", "image", "audio", "video")
IN_CONTENT = "content"
"""Where thinking came that was a part of the content."""
_PARTS = ("thinking", "reasoning", "thought", "reasoning_text", "redacted_thinking")
"""Types of a content part that are thinking, and no part of the answer."""
_TEXTS = ("text", "thinking", "reasoning", "summary", "content")


_OTHER_FIELDS = frozenset((*NAMES, *_MEDIA))


class Spoken(NamedTuple):
    """A message taken apart: its text and the thinking before it.

    Attributes:
        content: the answer's text.
        reasoning: the thinking; None where there is none.
        name: the field the thinking came in, under which it goes back; None where there is none.
        details: the thinking in the server's own parts, as it came.
        media: what the message has beside text: images, audio, video; None where it has none.
    """

    content: str | None
    reasoning: str | None
    name: str | None
    details: tuple[Mapping[str, Any], ...] = ()
    media: str | None = None


def spoken(message: Mapping[str, Any]) -> Spoken:
    """Take a message of a chat completion apart. Thinking in tags stays in the content, as it was answered."""
    if isinstance(message.get("content"), str) and _OTHER_FIELDS.isdisjoint(message):  # most are
        return Spoken(message["content"], None, None)
    content, thought = split_parts(message.get("content"))
    parts = message.get("reasoning_details")
    are_parts = isinstance(parts, list) and all(isinstance(part, dict) for part in parts)
    details = tuple(parts) if isinstance(parts, list) and are_parts else ()
    for name in NAMES:
        if (value := message.get(name)) and (text := text_of(value)):
            return Spoken(content, text, name, details, _media(message))
    return Spoken(content, thought, IN_CONTENT if thought else None, details, _media(message))


def _media(message: Mapping[str, Any]) -> str | None:
    """The first field or part of a message that is media; None where there is none."""
    for name in _MEDIA:
        if message.get(name):
            return f"`{name}`"
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        kind = str(part.get("type") or "") if isinstance(part, Mapping) else ""
        if any(name in kind for name in _MEDIA):
            return f"a part `{kind}`"
    return None


def with_thinking(reasoning: str, content: str | None) -> list[dict[str, Any]]:
    """The content of a message whose thinking goes back as a part of it, as Mistral has it."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}
    return [thinking, *([{"type": "text", "text": content}] if content else [])]


def split_parts(content: Any) -> tuple[str | None, str | None]:
    """The text and the thinking in a content: text, or a list of parts; anything else counts as no content."""
    if not isinstance(content, list):
        return (content if isinstance(content, str) else None), None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            thinking = part.get("type") in _PARTS or part.get("thought") is True
            (thoughts if thinking else texts).append(text_of(part) or "")
    return "".join(texts), "".join(thoughts) or None


def text_of(value: Any) -> str | None:
    """The text in a value of any of the shapes seen: text, a list of parts, a part with its text under some name."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, Mapping):
        return next((text for name in _TEXTS if (text := text_of(value.get(name)))), None)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "".join(text_of(part) or "" for part in value) or None
    return None
