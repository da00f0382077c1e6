"""The labelers that need no search: the encoder has attributed each token."""

from __future__ import annotations

from dataclasses import dataclass

from distill import IGNORE_INDEX, Encoded


@dataclass(frozen=True, slots=True)
class MaskedOptions:
    """Attributes:
    reasoning: train the reasoning before an answer too; false leaves it in the text, but trains the answer only.
    """

    reasoning: bool = True


class Copy:
    """Labels are the input ids: the student learns prompts and answers alike."""

    def label(self, encoded: Encoded) -> list[int]:
        """Copy `input_ids`."""
        return list(encoded.input_ids)


class Masked:
    """Labels are the input ids where the assistant wrote, its end-of-turn marker included; -100 elsewhere."""

    def __init__(self, options: MaskedOptions):
        self._reasoning = options.reasoning

    def label(self, encoded: Encoded) -> list[int]:
        """Mask what the assistant did not write; its reasoning too, if the options ask for it."""
        if self._reasoning:
            marks = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
            return [token if wrote else IGNORE_INDEX for token, wrote in marks]
        thoughts = zip(encoded.input_ids, encoded.assistant_mask, encoded.reasoning, strict=True)
        return [token if wrote and not thought else IGNORE_INDEX for token, wrote, thought in thoughts]
