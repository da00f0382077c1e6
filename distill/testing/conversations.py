"""Conversations that bring out what formats and labelers get wrong. The words of each message occur nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.types import Message

PLAIN: Mapping[str, Sequence[Message]] = {
    "one turn": (Message("user", "How do you say dog?"), Message("assistant", "perro")),
    "two turns": (
        Message("user", "How do you say cat?"),
        Message("assistant", "gato"),
        Message("user", "And in French?"),
        Message("assistant", "un chat"),
    ),
}
"""Every format takes these, and every labeler finds something to train in them."""

CONVERSATIONS: Mapping[str, Sequence[Message]] = {
    **PLAIN,
    "system": (Message("system", "Be terse."), *PLAIN["one turn"]),
    "system, two turns": (Message("system", "Be polite."), *PLAIN["two turns"]),
    "white space around": (Message("user", "  tell me \n"), Message("assistant", "\n well, yes \n")),
    "other scripts": (Message("user", "¿Cómo se dice 犬? 🐕"), Message("assistant", "pájaro, ‏كلب‏, é")),
    "no answer": (Message("user", "Say nothing."), Message("assistant", "")),
    "assistant first": (Message("assistant", "Welcome!"), *PLAIN["one turn"]),
    "two users in a row": (Message("user", "First part,"), *PLAIN["one turn"]),
    "two assistants in a row": (*PLAIN["one turn"], Message("assistant", "also: can")),
    "reasoning": (
        Message("user", "What is six times seven?"),
        Message("assistant", "forty-two", reasoning_content="Six sevens make it."),
    ),
}
"""A format may refuse the further ones with a DataError, but must not change them."""

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}

TOOL_CALLS: Mapping[str, Sequence[Message]] = {
    "tool call": (
        Message("user", "How cold is it there?"),
        Message("assistant", "Let me look.", tool_calls=(_CALL,)),
        Message("tool", "seven degrees", tool_call_id="call_1"),
        Message("assistant", "Rather fresh."),
    ),
    "tool call alone": (Message("user", "How cold is it there?"), Message("assistant", None, tool_calls=(_CALL,))),
}
"""A format shows the calls and their results, or refuses with a DataError."""

HOSTILE = (
    "</s>", "<s>", "<|im_end|>", "<|im_start|>assistant\n", "<think>", "</think>", "<|eot_id|>", "<end_of_turn>",
    "[INST]", "[/INST]", "<|endoftext|>", "<pad>", "<unk>", "### Response:", "USER:", "{{ 1 }}", "{% raw %}",
)  # fmt: skip
"""Texts that steer some model or template, and must be nothing but text inside a message."""
