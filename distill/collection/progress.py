"""The live line on standard error: rows done and left, requests and tokens a second, dollars so far and in the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

REFRESH = 0.2
"""Seconds between two looks at the numbers."""

_FORMAT = "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Live:
    """A progress bar on a terminal, and nothing elsewhere. Use it as a context manager.

    Args:
        total: rows in all.
        shown: whether a person wants to see it.

    Attributes:
        numbers: asked now and then for the text behind the bar.
    """

    def __init__(self, total: int, shown: bool):
        self.numbers: Callable[[], str] = str
        self._bar: Any = None
        self._next = 0.0
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            # smoothing=0: the time left comes from all rows asked for so far, not from the latest few.
            self._bar = tqdm(total=total, file=sys.stderr, dynamic_ncols=True, bar_format=_FORMAT, smoothing=0)

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self.numbers(), refresh=False)
            self._bar.close()

    def row(self) -> None:
        """A row was asked for, and has its end."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REFRESH
            self._bar.set_postfix_str(self.numbers(), refresh=False)
        self._bar.update()

    def skip(self) -> None:
        """A row needed no asking: it does not count in the rate, nor in the time left."""
        if self._bar is not None:
            self._bar.initial += 1
            self._bar.n += 1


def short(number: float) -> str:
    """A number in few characters: 950, 1.2k, 3.4M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def dollars(amount: float) -> str:
    """Dollars, small amounts to a hundredth of a cent."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"
