"""The chat format of zephyr-7b-beta, as a formatter for distill.

Each message is `<|role|>`, a newline, its text, the student's end-of-sequence token and a newline. The role markers
are plain text: the format needs no token that the student lacks, apart from an end-of-sequence token.
"""

from __future__ import annotations

import distill

ZEPHYR = distill.TextFormat(
    name="zephyr",
    system="<|system|>\n{}{eos}\n",
    system_anywhere=True,
    user="<|user|>\n{}{eos}\n",
    assistant="<|assistant|>\n{}",
    end="{eos}\n",
)


@distill.hookimpl
def register_formatters() -> list[distill.FormatterSpec]:
    """Offer `--formatter zephyr`."""
    return [distill.FormatterSpec("zephyr", "<|role|> blocks, as in zephyr-7b-beta", lambda options: ZEPHYR)]
