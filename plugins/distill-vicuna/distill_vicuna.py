"""The chat format of Vicuna v1.1, in which ShareGPT's conversations were trained, as a formatter for distill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import distill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}{{ SYSTEM + ' ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% elif message['role'] == 'assistant' and not message['tool_calls'] %}"
    "{{ 'ASSISTANT: ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('vicuna has no tools, and a system message only at the start') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class Vicuna:
    """Formats conversations as `USER: … ASSISTANT: …</s>`, on one line."""

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The end-of-turn marker, which must be one control token."""
        return [_end(tokenizer)]

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The same format as a Jinja chat template, system text and eos spelled out."""
        words = {"SYSTEM": SYSTEM, "eos_token": _end(tokenizer)}
        words = {name: json.dumps(word, ensure_ascii=False) for name, word in words.items()}
        return "".join(f"{{% set {name} = {word} %}}" for name, word in words.items()) + TEMPLATE

    def segments(
        self,
        messages: Sequence[distill.Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[distill.Segment]:
        """Render the conversation; see `distill.Formatter`.

        The generation prompt ends with `ASSISTANT:`, so the space after it is the assistant's to write: it is template
        text (`content=False`) of the assistant's turn, and is trained.

        Raises:
            DataError: it has tools, a message without text, or a system message that is not the first.
        """
        if tools:
            raise distill.DataError("vicuna has no tools", "choose a format that has")
        segments = []
        if not messages or messages[0].role != "system":
            segments.append(distill.Segment(SYSTEM + " "))
        for turn, message in enumerate(messages):
            if message.content is None or message.tool_calls or message.role == "tool":
                raise distill.DataError(f"message {turn}: vicuna has no tools, and no message without text")
            if message.role == "system" and turn:
                raise distill.DataError(f"message {turn}: vicuna has a system message only at the start")
            said = distill.Segment(message.content, content=True, role=message.role, turn=turn)
            if message.role == "assistant":
                space = distill.Segment(" ", role="assistant", turn=turn)
                end = distill.Segment(_end(tokenizer), role="assistant", turn=turn, end_of_turn=True)
                segments += [distill.Segment("ASSISTANT:"), space, said, end]
            else:
                marker = "USER: " if message.role == "user" else ""
                segments += [distill.Segment(marker), said, distill.Segment(" ")]
        if add_generation_prompt:
            segments.append(distill.Segment("ASSISTANT:"))
        return segments


def _end(tokenizer: PreTrainedTokenizerFast) -> str:
    """The marker by which an answer ends; Vicuna's own where the student has no eos."""
    return tokenizer.eos_token or "</s>"


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter vicuna`."""
    return [distill.FormatterSpec("vicuna", "USER: and ASSISTANT:, as in Vicuna v1.1", lambda options: Vicuna())]
