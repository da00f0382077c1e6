"""A labeler for distill: only the last answer of a conversation counts in the loss, and none of its reasoning."""

from __future__ import annotations

from dataclasses import dataclass

import distill


@dataclass(frozen=True)
class FinalAnswerOptions:
    """Attributes:
    opening: how an answer begins that has reasoning.
    closing: what ends the reasoning.
    """

    opening: str = "<think>"
    closing: str = "</think>"

    def __post_init__(self) -> None:
        if not self.opening or not self.closing:
            raise ValueError("opening and closing must not be empty")


class FinalAnswer:
    """Trains what the assistant wrote last, from the end of its reasoning to its end-of-turn marker."""

    def __init__(self, options: FinalAnswerOptions, encoder: distill.Encoder):
        self.options = options
        self.decode = encoder.tokenizer.decode

    def label(self, encoded: distill.Encoded) -> list[int]:
        """Label the tokens of the last answer; see `distill.Labeler`."""
        wrote = [n for n, mark in enumerate(encoded.assistant_mask) if mark]
        last = max((encoded.turn[n] for n in wrote), default=-1)
        answer = [n for n in wrote if encoded.turn[n] == last]
        kept = set(answer[self._reasoning([encoded.input_ids[n] for n in answer]) :])
        return [token if n in kept else distill.IGNORE_INDEX for n, token in enumerate(encoded.input_ids)]

    def _reasoning(self, tokens: list[int]) -> int:
        """How many tokens of an answer are reasoning. The marker may be one token, or the text of several."""
        if not self.decode(tokens).lstrip().startswith(self.options.opening):
            return 0
        text, closing = "", self.options.closing
        for n, token in enumerate(tokens, 1):
            piece = self.decode([token])
            text += piece
            if closing in text[-len(closing) - len(piece) :]:
                return n
        raise distill.DataError(f"the last answer begins with {self.options.opening} and never ends its reasoning")


@distill.hookimpl
def register_labelers() -> list[distill.LabelerSpec]:
    """Offer `--labeler final-answer`."""
    summary = "the last answer counts, without its reasoning"
    return [distill.LabelerSpec("final-answer", summary, build=FinalAnswer, options=FinalAnswerOptions)]
