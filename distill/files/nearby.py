"""Files and folders with a name like one that does not exist."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

_MOST_ENTRIES = 2000


def nearby(path: str | Path, accept: Callable[[Path], bool] = Path.exists) -> str | None:
    """Find what was probably meant by a path that does not exist, among its neighbours.

    Args:
        path: what the user wrote.
        accept: which entries of its folder may be meant.

    Returns:
        The path with the nearest name, as the user would write it; None where none is like it.
    """
    path = Path(path)
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)]
    except OSError:
        return None
    like = difflib.get_close_matches(path.name, names, n=5, cutoff=0.6)
    return next((str(path.parent / name) for name in like if accept(path.parent / name)), None)


def did_you_mean(path: str | Path, accept: Callable[[Path], bool] = Path.exists) -> str | None:
    """`did you mean 'answers.jsonl'?`, where a neighbour of a path that does not exist has a name like it."""
    found = nearby(path, accept)
    return None if found is None else f"did you mean {found!r}?"
