"""The labelers that need no search: the engine has already said who wrote each token."""

from __future__ import annotations

from distill import IGNORE_INDEX, Encoded


class Copy:
    """Labels are the input ids: the student learns to write prompts and answers alike."""

    def label(self, encoded: Encoded) -> list[int]:
        """Copy `input_ids`."""
        return list(encoded.input_ids)


class Masked:
    """Labels are the input ids where the assistant wrote, its end-of-turn marker included; -100 elsewhere."""

    def label(self, encoded: Encoded) -> list[int]:
        """Mask what the assistant did not write."""
        return [
            token if wrote else IGNORE_INDEX
            for token, wrote in zip(encoded.input_ids, encoded.assistant_mask, strict=True)
        ]
