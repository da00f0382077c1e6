"""What goes to a terminal: notes on standard error, and text of others made harmless."""

from __future__ import annotations

import json
from typing import Any

import click


def printable(text: str, newlines: bool = False) -> str:
    """Make text of a teacher, a student or a file harmless: control characters and bidi overrides become escapes.

    Args:
        text: anything.
        newlines: keep line breaks and tabs as they are.
    """
    return "".join(
        char if char.isprintable() or (newlines and char in "\n\t") else char.encode("unicode_escape").decode()
        for char in text
    )


def note(text: str) -> None:
    """Say something to the person who is watching: one line on standard error."""
    click.echo(printable(text), err=True)


def print_json(value: Any) -> None:
    """Print one line of JSON on standard output, ASCII only: nothing in it can reach a terminal raw."""
    click.echo(json.dumps(value, ensure_ascii=True))
