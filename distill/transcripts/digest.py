"""Digests of conversations: the same prompt, or the same conversation, wherever it appears."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from distill.transcripts.rows import message_to_dict
from distill.types import Message, Transcript

_encode = json.JSONEncoder(sort_keys=True).encode


def prompt_digest(transcript: Transcript) -> bytes:
    """A digest of the user's messages before the first answer; case and spacing make no difference."""
    asked = []
    for message in transcript.messages:
        if message.role == "assistant":
            break
        if message.role == "user":
            asked.append(" ".join((message.content or "").casefold().split()))
    return hashlib.blake2b("\0".join(asked).encode(), digest_size=16).digest()


def answer_digest(text: str) -> bytes:
    """A digest of an answer's words; spacing makes no difference."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def messages_digest(messages: Sequence[Message]) -> bytes:
    """A digest of a whole conversation: every field of every message counts."""
    rows = [message_to_dict(message) for message in messages]
    return hashlib.blake2b(_encode(rows).encode(), digest_size=16).digest()
