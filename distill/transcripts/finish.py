"""Finish reasons: whether an answer is known to be whole.

Every provider and server has its own words. An answer is whole only when its finish reason is known to be a good one;
an unknown reason (`error`, `abort`, `insufficient_system_resource`, next year's word) makes it untrustworthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any


class Finish(Enum):
    """What a finish reason means for the answer."""

    WHOLE = "whole"
    """The model ended its answer, or its tool calls."""
    CUT = "cut"
    """A token limit, or the length of the context, cut the answer."""
    REFUSED = "refused"
    """The model refused, or a filter withheld the answer or a part of it."""
    UNKNOWN = "unknown"
    """Anything else: an error, an abort, or a word that nobody has listed here."""


FINISH_REASONS: Mapping[Finish, tuple[str, ...]] = {
    Finish.WHOLE: (
        # OpenAI, vLLM, Ollama, Gemini, Groq, DeepSeek, …
        *("stop", "tool_calls", "tool_call", "function_call"),
        # Anthropic, Bedrock, Cohere
        *("end_turn", "stop_sequence", "tool_use", "complete", "completed"),
        # TGI, Together, llama.cpp
        *("eos", "eos_token", "end_of_turn", "end_of_text", "end_of_sequence", "stop_token", "stop_word", "word"),
        # other gateways and servers
        *("done", "end", "finished", "natural", "normal", "stop_str", "stop_string"),
    ),
    Finish.CUT: (
        *("length", "max_tokens", "max_token", "max_length", "max_new_tokens", "max_output_tokens", "limit"),
        *("max_completion_tokens", "token_limit", "token_limit_reached", "model_length", "max_context_length"),
        *("model_context_window_exceeded", "context_length_exceeded", "context_window_exceeded", "truncated"),
        "incomplete",
    ),
    Finish.REFUSED: (
        *("content_filter", "content_filtered", "content_filtering", "refusal", "refused", "safety", "recitation"),
        *("blocklist", "prohibited_content", "spii", "image_safety", "guardrail_intervened", "guardrails"),
        *("sensitive", "moderation", "flagged", "error_toxic", "blocked"),
    ),
}
"""The reasons that are known, in one spelling each; `finish_of` takes any spelling."""


def _plain(reason: str) -> str:
    """One spelling for all: `FinishReason.MAX_TOKENS`, `maxTokens` and `max-tokens` are the same reason."""
    plain = "".join(char for char in reason.rpartition(".")[2].casefold() if char.isalnum())
    return plain.removeprefix("finishreason")


_MEANINGS = {_plain(reason): finish for finish, reasons in FINISH_REASONS.items() for reason in reasons}


@lru_cache(maxsize=256)
def finish_of(reason: str | None) -> Finish:
    """Classify a finish reason.

    Args:
        reason: in any provider's spelling. None or an empty text counts as whole: many servers give no reason.
    """
    if not reason:
        return Finish.WHOLE
    return _MEANINGS.get(_plain(reason), Finish.UNKNOWN)


_CALLS = frozenset(map(_plain, ("tool_calls", "tool_call", "function_call", "tool_use")))


@lru_cache(maxsize=256)
def tells_of_calls(reason: str | None) -> bool:
    """Whether a finish reason is that of an answer with tool calls."""
    return reason is not None and _plain(reason) in _CALLS


_KEYS = ("finish_reason", "stop_reason", "done_reason", "finishReason", "stopReason")


def finish_reason_in(metadata: Mapping[str, Any]) -> str | None:
    """The finish reason in a row's metadata, under any provider's key; None where there is none.

    `finish_reason` comes first: vLLM's `stop_reason` beside it is the stop string, and no reason.
    """
    for key in _KEYS:
        reason = metadata.get(key)
        if isinstance(reason, str) and reason:
            return reason
    return None
