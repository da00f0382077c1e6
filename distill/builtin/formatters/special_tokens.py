r"""The article's format: text markers before each message, bos before and eos after each answer.

\n\n### Human:QUESTION\n\n### Assistant:<s>ANSWER</s>\n\n### Human:…
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import DataError, Message, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class SpecialTokensOptions:
    r"""The markers of the format. `\n` in a value means a line break.

    Attributes:
        instruction: stands before what the user says.
        response: stands before bos and what the assistant says.
    """

    instruction: str = "\n\n### Human:"
    response: str = "\n\n### Assistant:"


_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ INSTRUCTION + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ RESPONSE + BOS + message['content'] + EOS }}"
    "{% else %}{{ raise_exception('this format has no ' + message['role'] + ' messages') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ RESPONSE + BOS }}{% endif %}"
)


class SpecialTokens:
    """Formats with text markers and the tokenizer's own bos and eos.

    A tokenizer without bos goes without it; one without eos is given `</s>`.
    """

    def __init__(self, options: SpecialTokensOptions):
        self.instruction = options.instruction.replace("\\n", "\n")
        self.response = options.response.replace("\\n", "\n")

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The end marker must be a control token."""
        return [_eos(tokenizer)]

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The format in Jinja, its markers and tokens spelled out."""
        words = {
            "INSTRUCTION": self.instruction,
            "RESPONSE": self.response,
            "BOS": tokenizer.bos_token or "",
            "EOS": _eos(tokenizer),
        }
        return re.sub("|".join(words), lambda match: json.dumps(words[match[0]], ensure_ascii=False), _TEMPLATE)

    def segments(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[Segment]:
        """Render a conversation; see `distill.Formatter`."""
        if tools:
            raise DataError("the special-tokens format has no tools")
        opening = self.response + (tokenizer.bos_token or "")
        segments = []
        for turn, message in enumerate(messages):
            if message.content is None or message.role == "tool" or message.tool_calls:
                raise DataError(f"message {turn}: the special-tokens format has no tool calls and no tool messages")
            if message.role != "system":
                segments.append(Segment(self.instruction if message.role == "user" else opening))
            segments.append(Segment(message.content, True, message.role, turn))
            if message.role == "assistant":
                segments.append(Segment(_eos(tokenizer), False, "assistant", turn, end_of_turn=True))
        if add_generation_prompt:
            segments.append(Segment(opening))
        return segments


def _eos(tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.eos_token or "</s>"
