"""Built-in chat formats: the student's own chat template, and the article's special tokens."""

from __future__ import annotations

from distill import FormatterSpec, hookimpl
from distill.builtin.formatters.chat_template import ChatTemplate, ChatTemplateOptions
from distill.builtin.formatters.special_tokens import SpecialTokensOptions, special_tokens


@hookimpl
def register_formatters() -> list[FormatterSpec]:
    """Offer `chat-template` (the default) and `special-tokens`."""
    return [
        FormatterSpec(
            "chat-template",
            "the student's own chat template; ChatML for a student without one",
            ChatTemplate,
            ChatTemplateOptions,
        ),
        FormatterSpec(
            "special-tokens",
            "text markers, with bos before and eos after each answer",
            special_tokens,
            SpecialTokensOptions,
        ),
    ]
