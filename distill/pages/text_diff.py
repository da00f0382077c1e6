"""Where two texts differ, word by word, in bounded time; and text of others made visible without harm to scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from distill.files.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

Kind = Literal["same", "added", "missing"]

_CELLS = 160_000
"""The most pairs of words that are looked at: where more differ, they differ as a whole."""
_ALIKE = 0.4
"""Of texts with less in common, what is missing is not shown between the words: it would be hard to read."""
_MANY_LINES = re.compile("(\n{5,})")
_JOINERS = "\u200c\u200d"  # Persian words, families of emoji
_TONES = range(0x1F3FB, 0x1F400)  # skin colours


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text that both have, that is only in this one (`added`), or only in the other (`missing`)."""

    kind: Kind
    text: str


def difference(text: str, reference: str) -> list[Stretch]:
    """Say what a text has and lacks, of a reference.

    The longest common subsequence of words, after what they share at both ends; unlike difflib's, its time is bounded
    by the product of the lengths, whatever the texts are.

    Args:
        text: what is looked at.
        reference: what it is compared with.
    """
    ours, theirs = list(split_words(text)), list(split_words(reference))
    start = 0
    while start < min(len(ours), len(theirs)) and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < min(len(ours), len(theirs)) - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    pairs = _common(ours[start : len(ours) - end], theirs[start : len(theirs) - end])
    shared = sum(not word.isspace() for word in [*ours[:start], *(ours[start + i] for i, _ in pairs)])
    shared += sum(not word.isspace() for word in ours[len(ours) - end :])
    marked = [("same", word) for word in ours[:start]]
    at = other = start
    for one, two in [*((start + i, start + j) for i, j in pairs), (len(ours) - end, len(theirs) - end)]:
        marked += [("missing", word) for word in theirs[other:two]] + [("added", word) for word in ours[at:one]]
        marked += [("same", word) for word in ours[one : one + 1] if one < len(ours) - end]
        at, other = one + 1, two + 1
    marked += [("same", word) for word in ours[len(ours) - end :]]
    words = max(sum(not word.isspace() for word in side) for side in (ours, theirs))
    if shared < _ALIKE * words and any(kind == "added" for kind, _ in marked):
        marked = [pair for pair in marked if pair[0] != "missing"]
    return list(_stretches(marked))


def _stretches(marked: Sequence[tuple[Kind, str]]) -> Iterator[Stretch]:
    """Join words of a kind; of changes with nothing but space between them, what is missing comes first."""
    missing = added = space = ""
    for kind, word in [*marked, ("same", "")]:
        if kind == "same" and word.isspace() and added:
            space += word
        elif kind == "missing":
            missing, added, space = missing + (space if missing else "") + word, added + space, ""
        elif kind == "added":
            missing, added, space = missing + (space if missing else ""), added + space + word, ""
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
    if char in _JOINERS or ord(char) in _TONES:
        return "mark"
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category == "Lo" and unicodedata.east_asian_width(char) == "W" and not "가" <= char <= "힣":
        return "ideograph"
    return "word" if category[0] in "LN" else "symbol" if category == "So" else "sign"


def visible(text: str) -> Markup:
    """Text as markup: control characters and what turns the direction of text are escapes of their own look.

    Letters of all scripts, their marks, spaces of any width, joiners and line breaks stay what they are; of very many
    line breaks on end, their number is told.
    """
    from markupsafe import Markup

    parts = []
    for part in _MANY_LINES.split(text):
        if _MANY_LINES.fullmatch(part):
            parts.append(Markup('\n<i class="odd">{} line breaks</i>\n').format(len(part)))
        else:
            parts.append(_visible(part))
    return Markup("").join(parts)


def _visible(text: str) -> Markup:
    from markupsafe import Markup, escape

    if text.isascii() and text.isprintable():
        return escape(text)
    parts, before = [], ""
    for char in text:
        joins = char in _JOINERS and not before.isascii() and not before.isspace()
        if char.isprintable() or char in "\n\t" or joins or unicodedata.category(char) == "Zs":
            parts.append(char)
        else:
            parts.append(Markup('<i class="odd">{}</i>').format(printable(char)))
        before = char
    return Markup("").join(escape("".join(run)) if plain else Markup("").join(run) for plain, run in _runs(parts))


def _runs(parts: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    from markupsafe import Markup

    for plain, run in groupby(parts, lambda part: not isinstance(part, Markup)):
        yield plain, list(run)
