r"""The article's format: text markers before each message, bos before and eos after each answer.

\n\n### Human:QUESTION\n\n### Assistant:<s>ANSWER</s>\n\n### Human:…
"""

from __future__ import annotations

from dataclasses import dataclass

from distill import TextFormat


@dataclass(frozen=True, slots=True)
class SpecialTokensOptions:
    r"""The markers of the format. `\n` in a value means a line break.

    Attributes:
        instruction: the marker before a user's message.
        response: the marker before bos and an answer.
    """

    instruction: str = "\n\n### Human:"
    response: str = "\n\n### Assistant:"

    def __post_init__(self) -> None:
        for marker in (self.instruction, self.response):
            if "{}" in marker:
                raise ValueError(f"a marker cannot contain {{}}: {marker!r}")


def special_tokens(options: SpecialTokensOptions) -> TextFormat:
    """Make the format: text markers, and the tokenizer's own bos and eos."""
    return TextFormat(
        name="the special-tokens format",
        system="{}",
        system_anywhere=True,
        user=options.instruction.replace("\\n", "\n") + "{}",
        assistant=options.response.replace("\\n", "\n") + "{bos}{}",
        end="{eos}",
    )
