"""`--hold-out`: which conversations are kept from training, to compare with afterwards.

What decides is the conversation's prompt, never its place in a file: all answers to one prompt, however it is spelled,
fall on the same side, on every machine and in every process.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DataError, UsageError
from distill.transcripts.dialects import read_transcripts
from distill.transcripts.digest import prompt_digest
from distill.types import Transcript

_WAYS = "give a share of the conversations, e.g. 10%, or how many, e.g. 50"


@dataclass(frozen=True, slots=True)
class Split:
    """Which conversations are held out.

    Attributes:
        text: as the user gave it.
        seed: another one gives another split.
        share: of the prompts, more than 0 and less than 1; None where the conversations are counted.
        prompts: digests of the prompts that are held out, where the conversations are counted.
    """

    text: str
    seed: int
    share: float | None
    prompts: frozenset[bytes] = frozenset()

    def holds_out(self, transcript: Transcript) -> bool:
        """Whether this conversation is held out."""
        prompt = prompt_digest(transcript)
        return prompt in self.prompts if self.share is None else _place(prompt, self.seed) < self.share * 2**64

    def check(self, rows: int, held_out: int) -> None:
        """Refuse a split with an empty side.

        Args:
            rows: of all conversations.
            held_out: how many of them are.

        Raises:
            DataError: says which side it is, and the way out.
        """
        if rows and not held_out:
            raise DataError(
                f"--hold-out {self.text} of {_conversations(rows)} holds out none",
                "answers to one prompt are never parted; give a larger share, or how many to hold out",
            )
        if rows and held_out == rows:
            raise DataError(
                f"--hold-out {self.text} leaves none of {_conversations(rows)} to train on",
                "answers to one prompt are never parted; hold out less, or give conversations with more prompts",
            )


def make_split(text: str, paths: Sequence[Path], data_format: str | None, seed: int) -> Split:
    """Decide what is held out of files of conversations.

    Args:
        text: `10%`: each prompt by its own hash, so that more data moves none to the other side; or `50`:
            conversations, as near to so many as whole prompts allow without exceeding it.
        paths: the data; read here only where conversations are counted.
        data_format: of the rows, see `distill.transcripts.dialects`.
        seed: another one gives another split.

    Raises:
        UsageError: the text is something else, or a file can be read only once.
        DataError: a file cannot be read, or it has not so many conversations.
    """
    share, count = _parse(text)
    for path in paths:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} can be read only once, and --hold-out reads it twice", "save it as a file first")
    if share is not None:
        return Split(text, seed, share)
    rows = Counter(prompt_digest(one) for path in paths for one in read_transcripts(path, data_format))
    if (total := rows.total()) and count >= total:
        raise DataError(
            f"--hold-out {text} leaves none of {_conversations(total)} to train on", "hold out less, e.g. 10%"
        )
    chosen = set()
    for prompt in sorted(rows, key=lambda prompt: (_place(prompt, seed), prompt)):
        if rows[prompt] <= count:
            chosen.add(prompt)
            count -= rows[prompt]
    return Split(text, seed, None, frozenset(chosen))


def read_held_out(paths: Sequence[Path], data_format: str | None, split: Split) -> Iterator[Transcript]:
    """Read the conversations that are held out, in the order of the files."""
    for path in paths:
        yield from filter(split.holds_out, read_transcripts(path, data_format))


def _parse(text: str) -> tuple[float | None, int]:
    """The share, or how many conversations."""
    try:
        if not text.endswith("%"):
            count = int(text)
            if count < 1:
                raise ValueError
            return None, count
        share = float(text[:-1]) / 100
    except ValueError:
        raise UsageError(f"--hold-out {text!r} is no share and no number of conversations", _WAYS) from None
    if not 0 < share < 1:  # NaN is none either
        raise UsageError(f"--hold-out {text} would leave nothing on one side", "give a share between 0% and 100%")
    return share, 0


def _place(prompt: bytes, seed: int) -> int:
    """Where a prompt stands, of 2**64 places: at random, and the same everywhere."""
    return int.from_bytes(hashlib.blake2b(f"hold-out {seed} ".encode() + prompt, digest_size=8).digest(), "big")


def _conversations(count: int) -> str:
    return f"{count} conversation{'s' if count != 1 else ''}"
