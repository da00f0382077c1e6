"""Thoughts that a generation prompt opens, as those of R1-Distill, QwQ and other reasoning models do."""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENING = re.compile(
    r"<(?P<tag>think|thinking|thought|reasoning|seed:think)>|\[(?P<bracket>THINK)\]|<\|START_(?P<pipe>THINKING)\|>"
)


class Opening(NamedTuple):
    """A thought's opening at the end of a generation prompt.

    Attributes:
        header: the prompt's text before it.
        closer: the marker that closes the thought.
        space: the white space after the opening marker.
        closed: whether the prompt closes the thought again: the student is asked not to think.
    """

    header: str
    closer: str
    space: str
    closed: bool

    @property
    def closing(self) -> str:
        """What comes between thought and answer, spaced like the opening: `\\n</think>\\n\\n` after `<think>\\n`."""
        return f"{self.space}{self.closer}{self.space * 2}"

    def after_thought(self, text: str) -> str:
        """A template's text without the end of a thought at its start, or the whole of an empty one."""
        before, closer, after = text.partition(self.closer)
        if closer and _OPENING.sub("", before).strip() == "":
            return after.lstrip("\n")
        return text


def find_opening(prompt: str) -> Opening | None:
    """Find the last thought that a generation prompt opens.

    Args:
        prompt: the template's text after the last message.

    Returns:
        None where it opens none.
    """
    matches = list(_OPENING.finditer(prompt))
    if not matches:
        return None
    last = matches[-1]
    closer = f"</{last['tag']}>"
    if not last["tag"]:
        closer = "[/THINK]" if last["bracket"] else "<|END_THINKING|>"
    rest = prompt[last.end() :]
    space = rest[: len(rest) - len(rest.lstrip())]
    return Opening(prompt[: last.start()], closer, space, closer in rest)
