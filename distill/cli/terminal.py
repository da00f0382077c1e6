"""What goes to a terminal: notes on standard error, JSON on standard output, nothing of others raw."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from distill.files.text import printable
from distill.progress import QUIET

__all__ = ["colours_asked_for", "note", "print_json", "printable", "shows_colours"]


def note(text: str) -> None:
    """Tell the person who is watching something: one line on standard error, unless `--quiet`."""
    if not QUIET.get():
        click.echo(printable(text), err=True)


def colours_asked_for() -> bool | None:
    """What `NO_COLOR` (https://no-color.org) and `FORCE_COLOR` say; None: colours on a terminal only."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR", "0") not in ("", "0") else None


def shows_colours() -> bool:
    """Whether standard output is shown in colour."""
    asked = colours_asked_for()
    return sys.stdout.isatty() if asked is None else asked


def print_json(value: Any) -> None:
    """Print one line of JSON on standard output, ASCII only: nothing in it can reach a terminal raw."""
    click.echo(json.dumps(value, ensure_ascii=True))
