"""`--hold-out`: which conversations are kept from training, to compare with afterwards.

The conversation's prompt decides, never its place in a file: all answers to one prompt, however it is spelled, are
either trained or held out, on every machine and in every process.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from distill.errors import DataError, UsageError
from distill.transcripts.digest import prompt_digest
from distill.transcripts.reader import Reader, skip_refused
from distill.transcripts.sources import Data, as_sources
from distill.types import Transcript

_EXAMPLES = "give a percentage of the conversations, e.g. 10%, or a number of them, e.g. 50"


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Which conversations are held out.

    Attributes:
        text: as the user gave it.
        seed: another seed chooses other conversations.
        fraction: of the prompts, more than 0 and less than 1; None where conversations are counted.
        prompts: digests of the prompts that are held out, where conversations are counted.
    """

    text: str
    seed: int
    fraction: float | None
    prompts: frozenset[bytes] = frozenset()

    def holds_out(self, transcript: Transcript) -> bool:
        """Whether this conversation is held out."""
        prompt = prompt_digest(transcript)
        if self.fraction is None:
            return prompt in self.prompts
        return _rank(prompt, self.seed) < self.fraction * 2**64

    def check(self, rows: int, held_out: int) -> None:
        """Refuse to hold out all conversations, or none.

        Args:
            rows: the number of all conversations.
            held_out: how many of them are held out.

        Raises:
            DataError: nothing is left to train on, or nothing is held out; the hint says how to change it.
        """
        if rows and not held_out:
            raise DataError(
                f"--hold-out {self.text} of {_conversations(rows)} holds out none",
                "answers to one prompt are never separated; give a larger percentage, or a number to hold out",
            )
        if rows and held_out == rows:
            raise DataError(
                f"--hold-out {self.text} leaves none of {_conversations(rows)} to train on",
                "answers to one prompt are never separated; hold out less, or give conversations with more prompts",
            )


def make_hold_out(text: str, data: Data, reader: Reader | None, seed: int) -> HoldOut:
    """Decide what is held out of the data.

    Args:
        text: `10%`: each prompt by its own hash, so that adding data never moves a prompt to the other side; or `50`:
            conversations, as many as whole prompts allow without exceeding the number.
        data: read here only where conversations are counted.
        reader: reads the data; None: there are none, only the text is checked.
        seed: another seed chooses other conversations.

    Raises:
        UsageError: the text is something else, or the data can be read only once.
        DataError: the data cannot be read, or there are too few conversations.
    """
    fraction, count = _parse(text)
    sources = as_sources(data)
    for source in sources:
        if not source.rereadable:
            raise UsageError(
                f"{source} can be read only once, and --hold-out reads it twice", "save it as a file first"
            )
    if fraction is not None:
        return HoldOut(text, seed, fraction)
    if reader is None:
        return HoldOut(text, seed, None)
    rows = Counter(prompt_digest(one) for one in reader.transcripts(sources, skip_refused))
    if (total := rows.total()) and count >= total:
        raise DataError(
            f"--hold-out {text} leaves none of {_conversations(total)} to train on", "hold out less, e.g. 10%"
        )
    chosen = set()
    for prompt in sorted(rows, key=lambda prompt: (_rank(prompt, seed), prompt)):
        if rows[prompt] <= count:
            chosen.add(prompt)
            count -= rows[prompt]
    return HoldOut(text, seed, None, frozenset(chosen))


def read_held_out(data: Data, reader: Reader, hold_out: HoldOut) -> Iterator[Transcript]:
    """Read the conversations that are held out, in the order of the data."""
    return filter(hold_out.holds_out, reader.transcripts(data, skip_refused))


def _parse(text: str) -> tuple[float | None, int]:
    """The fraction, or the number of conversations."""
    try:
        if not text.endswith("%"):
            count = int(text)
            if count < 1:
                raise ValueError
            return None, count
        fraction = float(text[:-1]) / 100
    except ValueError:
        raise UsageError(f"--hold-out must be a percentage or a count, not {text!r}", _EXAMPLES) from None
    if not 0 < fraction < 1:  # false for NaN too
        raise UsageError(f"--hold-out {text} would leave nothing on one side", "give more than 0% and less than 100%")
    return fraction, 0


def _rank(prompt: bytes, seed: int) -> int:
    """A prompt's place among 2**64: at random, but the same everywhere."""
    return int.from_bytes(hashlib.blake2b(f"hold-out {seed} ".encode() + prompt, digest_size=8).digest(), "big")


def _conversations(count: int) -> str:
    return f"{count} conversation{'s' if count != 1 else ''}"
