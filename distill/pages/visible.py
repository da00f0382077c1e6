"""Untrusted text as markup, in which nothing acts and nothing hides."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING

from distill.files.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

JOINERS = "\u200c\u200d"
"""Invisible characters that letters are joined or parted by: Persian words, families of emoji."""

_MANY_LINES = re.compile("(\n{5,})")


def visible(text: str, tokens: bool = False) -> Markup:
    """Text as markup: control characters and characters that change the direction of text appear as escapes.

    Letters of all scripts, their marks, spaces of any width, joiners and line breaks stay what they are; of five and
    more line breaks in a row, the number is shown.

    Args:
        text: anything; lone surrogates included.
        tokens: every character counts: whatever cannot be seen is an escape, and a line break has a mark before it.
    """
    from markupsafe import Markup, escape

    if text.isascii() and text.isprintable():
        return escape(text)
    if tokens:
        return Markup("").join(_token_character(char) for char in text)
    parts = []
    for part in _MANY_LINES.split(text):
        if _MANY_LINES.fullmatch(part):
            parts.append(Markup('\n<i class="odd">{} line breaks</i>\n').format(len(part)))
        else:
            parts.append(_prose(part))
    return Markup("").join(parts)


def _token_character(char: str) -> Markup:
    from markupsafe import Markup, escape

    if char == "\n":
        return Markup('<i class="odd">↵</i>\n')
    return escape(char) if char.isprintable() else _escaped(char)


def _prose(text: str) -> Markup:
    from markupsafe import Markup, escape

    shown: list[tuple[bool, str]] = []
    before = ""
    for char in text:
        joins = char in JOINERS and not before.isascii() and not before.isspace()
        plain = char.isprintable() or char in "\n\t" or joins or unicodedata.category(char) == "Zs"
        shown.append((plain, char))
        before = char
    parts = []
    for plain, run in groupby(shown, lambda pair: pair[0]):
        chars = [char for _, char in run]
        parts.append(escape("".join(chars)) if plain else Markup("").join(map(_escaped, chars)))
    return Markup("").join(parts)


def _escaped(char: str) -> Markup:
    from markupsafe import Markup

    return Markup('<i class="odd">{}</i>').format(printable(char))
