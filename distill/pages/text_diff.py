"""Where two texts differ, word by word, in bounded time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from distill.pages.visible import JOINERS

Kind = Literal["same", "added", "missing"]

_CELLS = 160_000
"""The most pairs of words that are compared: where more differ, they differ as a whole."""
_ALIKE = 0.4
"""Of texts with less in common, what is missing is not shown between the words: it would be hard to read."""
_TONES = range(0x1F3FB, 0x1F400)  # skin colours


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of text that both have, that only this one has (`added`), or only the reference (`missing`)."""

    kind: Kind
    text: str


def difference(text: str, reference: str) -> list[Stretch]:
    """Mark what a text adds to a reference, and what it lacks of it.

    The longest common subsequence of words, after what they share at both ends; unlike difflib's, its time is bounded
    by the product of the lengths, whatever the texts are.

    Args:
        text: the text that is marked.
        reference: what it is compared with.
    """
    ours, theirs = list(split_words(text)), list(split_words(reference))
    pairs = _common_words(ours, theirs)
    marked: list[tuple[Kind, str]] = []
    at = other = shared = 0
    for one, two in [*pairs, (len(ours), len(theirs))]:
        marked.extend(("missing", word) for word in theirs[other:two])
        marked.extend(("added", word) for word in ours[at:one])
        if one < len(ours):
            marked.append(("same", ours[one]))
            shared += not ours[one].isspace()
        at, other = one + 1, two + 1
    words = max(sum(not word.isspace() for word in side) for side in (ours, theirs))
    if shared < _ALIKE * words and any(kind == "added" for kind, _ in marked):
        marked = [pair for pair in marked if pair[0] != "missing"]
    return list(_stretches(marked))


def _common_words(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """The places of the words that both have, in order: those at both ends, and a common subsequence between them."""
    shortest = min(len(ours), len(theirs))
    start = 0
    while start < shortest and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < shortest - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    middle = _common(ours[start : len(ours) - end], theirs[start : len(theirs) - end])
    return [
        *((n, n) for n in range(start)),
        *((start + one, start + two) for one, two in middle),
        *((len(ours) - n, len(theirs) - n) for n in range(end, 0, -1)),
    ]


def _stretches(marked: Sequence[tuple[Kind, str]]) -> Iterator[Stretch]:
    """Join words of a kind; of changes with nothing but space between them, what is missing comes first."""
    missing = added = space = ""
    end: tuple[Kind, str] = ("same", "")
    for kind, word in [*marked, end]:
        if kind == "same" and word.isspace() and added:
            space += word
        elif kind == "missing":
            if missing:
                missing += space
            missing += word
            added, space = added + space, ""
        elif kind == "added":
            if missing:
                missing += space
            added, space = added + space + word, ""
        else:
            stretches = (Stretch("missing", missing), Stretch("added", added), Stretch("same", space + word))
            yield from (one for one in stretches if one.text)
            missing = added = space = ""


def _common(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence; none, where there is too much to look at."""
    if not ours or not theirs or len(ours) * len(theirs) > _CELLS:
        return []
    rows = [[0] * (len(theirs) + 1)]
    for word in reversed(ours):
        below, row = rows[-1], [0] * (len(theirs) + 1)
        for j in range(len(theirs) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if word == theirs[j] else max(below[j], row[j + 1])
        rows.append(row)
    rows.reverse()
    i, j, found = 0, 0, []
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif rows[i + 1][j] >= rows[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def split_words(text: str) -> Iterator[str]:
    """Words, spaces, and signs one by one; together they are the text.

    A mark stays with its letter, a joiner with both its neighbours; scripts without spaces are split by character.
    """
    word, before = "", ""
    for char in text:
        kind = _kind(char)
        joined = kind == "mark" or word[-1:] == "\u200d"
        if word and not joined and (kind != before or kind in ("ideograph", "sign")):
            yield word
            word = ""
        word, before = word + char, before if joined and word else kind
    if word:
        yield word


def _kind(char: str) -> str:
    if char.isspace():
        return "space"
    if char in JOINERS or ord(char) in _TONES:
        return "mark"
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category == "Lo" and unicodedata.east_asian_width(char) == "W" and not "가" <= char <= "힣":
        return "ideograph"
    return "word" if category[0] in "LN" else "symbol" if category == "So" else "sign"
