"""The chat format of Vicuna v1.1, in which ShareGPT's conversations were trained, as a formatter for distill."""

from __future__ import annotations

import distill

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# The generation prompt ends with the colon: the space after it is the student's to write, and is trained.
VICUNA = distill.TextFormat(
    name="vicuna",
    system="{} ",
    default_system=SYSTEM,
    user="USER: {} ",
    assistant="ASSISTANT: {}",
    generation_prompt="ASSISTANT:",
    end="{eos}",
)


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter vicuna`."""
    return [distill.FormatterSpec("vicuna", "USER: and ASSISTANT:, as in Vicuna v1.1", lambda options: VICUNA)]
