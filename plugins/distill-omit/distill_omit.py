"""A labeler for distill: the assistant's tokens count, but for phrases that the student shall not learn to say."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import distill

PHRASES = ("as an AI language model", "as a large language model", "OpenAI", "ChatGPT", "Anthropic", "Claude", "Gemini")


@dataclass(frozen=True)
class OmitOptions:
    """Attributes:
    phrases: what does not count, wherever an answer says it, in capitals or not; a JSON list.
    """

    phrases: tuple[str, ...] = PHRASES

    def __post_init__(self) -> None:
        if not self.phrases or not all(isinstance(phrase, str) and phrase for phrase in self.phrases):
            raise ValueError('phrases must be a list of texts, such as ["ChatGPT", "OpenAI"]')


class Omit:
    """Trains what the assistant wrote and its end-of-turn markers, except every token that holds part of a phrase."""

    def __init__(self, options: OmitOptions, encoder: distill.Encoder):
        longest_first = sorted(options.phrases, key=len, reverse=True)
        self.phrases = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
        self.decode = encoder.tokenizer.decode

    def label(self, encoded: distill.Encoded) -> list[int]:
        """Label the assistant's tokens; see `distill.Labeler`."""
        labels = [distill.IGNORE_INDEX] * len(encoded.input_ids)
        wrote = [n for n, mark in enumerate(encoded.assistant_mask) if mark]
        for _, answer in groupby(wrote, key=lambda n: encoded.turn[n]):
            places = list(answer)
            tokens = [encoded.input_ids[n] for n in places]
            omitted = set(self._omitted(tokens))
            for n, (place, token) in enumerate(zip(places, tokens, strict=True)):
                if n not in omitted or encoded.end_of_turn[place]:
                    labels[place] = token
        return labels

    def _omitted(self, tokens: Sequence[int]) -> Iterator[int]:
        """Which tokens of an answer hold part of a phrase."""
        text, counts = self.decode(tokens), range(len(tokens) + 1)
        for found in self.phrases.finditer(text):
            # From the token that first reaches into the phrase to the one that completes it.
            first = bisect_right(counts, found.start(), key=lambda n: len(self.decode(tokens[:n]))) - 1
            until = text[: found.end()]
            last = bisect_left(counts, True, key=lambda n: self.decode(tokens[:n]).startswith(until))
            yield from range(first, last)


@distill.hookimpl
def register_labelers() -> list[distill.LabelerSpec]:
    """Offer `--labeler omit`."""
    summary = "the assistant's tokens count, but for phrases: -L phrases='[\"OpenAI\"]'"
    # Parts of answers are left out on purpose: without `allows`, the label proof would keep `train` from starting.
    return [distill.LabelerSpec("omit", summary, build=Omit, options=OmitOptions, allows=["partial-answer"])]
