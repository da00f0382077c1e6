"""The chat format of Alpaca, as a formatter for distill: plain text markers, and the student's own eos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import distill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
INSTRUCTION = "### Instruction:\n"
RESPONSE = "### Response:\n"

TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}{{ PREAMBLE + '\\n\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' and not message['tool_calls'] %}"
    "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
    "{% else %}{{ raise_exception('alpaca has no tools, and a system message only at the start') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class AlpacaOptions:
    """Attributes:
    preamble: stands before the first instruction, where the conversation has no system message.
    """

    preamble: str = PREAMBLE


class Alpaca:
    """Formats conversations as instructions and responses, each response ended by the student's eos."""

    def __init__(self, options: AlpacaOptions):
        self.preamble = options.preamble

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The end-of-turn marker, which must be one control token."""
        return [_end(tokenizer)]

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The same format as a Jinja chat template, preamble and eos spelled out."""
        words = {"PREAMBLE": self.preamble, "eos_token": _end(tokenizer)}
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

        Raises:
            DataError: it has tools, a message without text, or a system message that is not the first.
        """
        if tools:
            raise distill.DataError("alpaca has no tools", "choose a format that has")
        segments = []
        if not messages or messages[0].role != "system":
            segments.append(distill.Segment(self.preamble + "\n\n"))
        for turn, message in enumerate(messages):
            if message.content is None or message.tool_calls or message.role == "tool":
                raise distill.DataError(f"message {turn}: alpaca has no tools, and no message without text")
            if message.role == "system" and turn:
                raise distill.DataError(f"message {turn}: alpaca has a system message only at the start")
            if message.role != "system":
                segments.append(distill.Segment(INSTRUCTION if message.role == "user" else RESPONSE))
            segments.append(distill.Segment(message.content, content=True, role=message.role, turn=turn))
            if message.role == "assistant":
                segments.append(distill.Segment(_end(tokenizer), role="assistant", turn=turn, end_of_turn=True))
            segments.append(distill.Segment("\n\n"))
        if add_generation_prompt:
            segments.append(distill.Segment(RESPONSE))
        return segments


def _end(tokenizer: PreTrainedTokenizerFast) -> str:
    """The marker by which a response ends; `</s>` where the student has no eos."""
    return tokenizer.eos_token or "</s>"


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter alpaca`."""
    return [distill.FormatterSpec("alpaca", "### Instruction: and ### Response:, as in Alpaca", Alpaca, AlpacaOptions)]
