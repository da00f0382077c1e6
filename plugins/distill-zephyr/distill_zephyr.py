"""The chat format of zephyr-7b-beta, as a formatter for distill.

Each message is `<|role|>`, a newline, its text, the student's end-of-sequence token and a newline. The role markers
are plain text: the format needs no token that the student lacks, apart from an end-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import distill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Renders what the template of HuggingFaceH4/zephyr-7b-beta renders, but refuses a tool's message instead of leaving
# it out.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' or message['tool_calls'] %}"
    "{{ raise_exception('zephyr has no tool messages') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


class Zephyr:
    """Formats conversations as `<|role|>` blocks that end with the student's own end-of-sequence token."""

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The end-of-turn marker, which must be one control token."""
        return [_end(tokenizer)]

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The same format as a Jinja chat template."""
        if tokenizer.eos_token:
            return TEMPLATE
        return "{% set eos_token = '" + _end(tokenizer) + "' %}" + TEMPLATE  # Jinja is given none to print

    def segments(
        self,
        messages: Sequence[distill.Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[distill.Segment]:
        """Render the conversation.

        Args:
            messages: the conversation; system messages may stand anywhere.
            tokenizer: the student's: its end-of-sequence token ends each message.
            tools: must be empty.
            add_generation_prompt: whether to end with `<|assistant|>` and a newline.

        Raises:
            DataError: the conversation has tools, or a message without text (a refusal, or tool calls alone).
        """
        if tools:
            raise distill.DataError("zephyr has no tool messages", "choose a format that has tools")
        end = _end(tokenizer)
        segments = []
        for turn, message in enumerate(messages):
            if message.role == "tool" or message.tool_calls:
                raise distill.DataError("zephyr has no tool messages", "choose a format that has tools")
            if message.content is None:
                raise distill.DataError(f"message {turn} has no content for zephyr to show")
            ends_turn = message.role == "assistant"
            segments += [
                distill.Segment(f"<|{message.role}|>\n"),
                distill.Segment(message.content, content=True, role=message.role, turn=turn),
                distill.Segment(end, role=message.role, turn=turn, end_of_turn=ends_turn),
                distill.Segment("\n"),
            ]
        if add_generation_prompt:
            segments.append(distill.Segment("<|assistant|>\n"))
        return segments


def _end(tokenizer: PreTrainedTokenizerFast) -> str:
    """The marker by which a message ends; zephyr's own where the student has none."""
    return tokenizer.eos_token or "</s>"


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter zephyr`."""
    return [distill.FormatterSpec("zephyr", "<|role|> blocks, as in zephyr-7b-beta", build=lambda options: Zephyr())]
