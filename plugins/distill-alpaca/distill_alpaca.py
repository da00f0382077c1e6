"""The chat format of Alpaca, as a formatter for distill: plain text markers, and the student's own eos."""

from __future__ import annotations

from dataclasses import dataclass

import distill

PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


@dataclass(frozen=True)
class AlpacaOptions:
    """Attributes:
    preamble: the text before the first instruction of a conversation without a system message.
    """

    preamble: str = PREAMBLE


def alpaca(options: AlpacaOptions) -> distill.TextFormat:
    """Make the format."""
    return distill.TextFormat(
        name="alpaca",
        system="{}\n\n",
        default_system=options.preamble,
        user="### Instruction:\n{}\n\n",
        assistant="### Response:\n{}",
        end="{eos}\n\n",
    )


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter alpaca`."""
    return [distill.FormatterSpec("alpaca", "### Instruction: and ### Response:, as in Alpaca", alpaca, AlpacaOptions)]
