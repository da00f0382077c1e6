"""What goes to a terminal: notes on standard error, JSON on standard output, nothing of others raw."""

from __future__ import annotations

import json
from typing import Any

import click

from distill.files.text import printable

__all__ = ["note", "print_json", "printable"]


def note(text: str) -> None:
    """Say something to the person who is watching: one line on standard error."""
    click.echo(printable(text), err=True)


def print_json(value: Any) -> None:
    """Print one line of JSON on standard output, ASCII only: nothing in it can reach a terminal raw."""
    click.echo(json.dumps(value, ensure_ascii=True))
