"""How far a piece of work is: a bar on a terminal or in a notebook, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

REFRESH = 0.2
"""Seconds between two updates of a bar's text."""
PLAIN_SECONDS, PLAIN_FRACTION, LEAST_SECONDS = 30.0, 0.05, 5.0
"""In a log: a line after this long, or after this much of the work, but never sooner than the last of them."""

QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether notes and progress are turned off, as by `distill --quiet`."""

_FORMAT = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Progress:
    """Progress on standard error. Use it as a context manager, or call `close`.

    Args:
        what: what is being done, e.g. `training`.
        total: how many units there are; None: unknown.
        unit: what is counted, in the singular.
        text: asked now and then for what to show beside the count, e.g. `loss 2.31`.
        shown: False: show nothing.
    """

    def __init__(
        self, what: str, total: int | None, unit: str, *, text: Callable[[], str] = str, shown: bool = True
    ) -> None:
        shown = shown and not QUIET.get()
        self.text = text
        self.done = self.skipped = 0
        self._what, self._total, self._unit, self._shown = what, total, unit, shown
        self._began = self._told_at = time.monotonic()
        self._refreshed_at = 0.0
        self._first: int | None = None  # units at the first news: they warmed up, or were done before a resumption
        self._told = 0
        self._bar: Any = _bar(what, total, unit) if shown and _is_live() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def advance(self) -> None:
        """One more is done."""
        self.to(self.done + 1)

    def skip(self) -> None:
        """One more needed no work: it counts neither in the rate nor in the time left."""
        self.skipped += 1
        self.to(self.done + 1)

    def to(self, done: int) -> None:
        """So many are done, the skipped ones included."""
        before, self.done = self.done, done
        if self._first is None and done > self.skipped:
            self._first, self._began = done - self.skipped, time.monotonic()
        if self._bar is not None:
            self._bar.initial = self.skipped + (self._first or 0)
            now = time.monotonic()
            if now - self._refreshed_at >= REFRESH:
                self._refreshed_at = now
                self._bar.set_postfix_str(self.text(), refresh=False)
            self._bar.update(done - before)
        elif self._shown and self._is_due():
            self._told, self._told_at = done, time.monotonic()
            print(f"distill: {self.line()}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.set_postfix_str(self.text(), refresh=False)
            self._bar.close()
            self._bar = None

    def line(self) -> str:
        """The state as one line of a log."""
        if self._total:
            count = f"{self.done:,} of {self._total:,} {self._unit}s ({self.done / self._total:.0%})"
        else:
            count = f"{self.done:,} {self._unit}s"
        parts = [f"{self._what}: {count}"]
        if text := self.text():
            parts.append(text)
        worked, seconds = self.done - self.skipped - (self._first or 0), time.monotonic() - self._began
        if worked > 0 and seconds > 0:
            rate = worked / seconds
            parts.append(f"{rate:.2g} {self._unit}s/s" if rate < 10 else f"{rate:,.0f} {self._unit}s/s")
            if self._total:
                parts.append(f"{duration((self._total - self.done) / rate)} left")
        return ", ".join(parts)

    def _is_due(self) -> bool:
        if self.done == self._told:
            return False
        waited = time.monotonic() - self._told_at
        if waited < LEAST_SECONDS or self._total is None:
            return waited >= PLAIN_SECONDS
        return waited >= PLAIN_SECONDS or self.done - self._told >= PLAIN_FRACTION * self._total


class StepProgress:
    """Progress of a training, told by its log rows."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._losses: dict[str, float] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take a log row: `step`, `max_steps`, `loss` or, of an evaluation, `eval_loss`."""
        if self._progress is None:
            total = int(row.get("max_steps", 0)) or None
            self._progress = Progress("training", total, "step", text=self._text, shown=self._shown)
        names = {"loss": "loss", "eval_loss": "held-out loss"}
        self._losses |= {name: row[key] for key, name in names.items() if key in row}
        self._progress.to(int(row["step"]))

    def _text(self) -> str:
        return ", ".join(f"{name} {loss:.3f}" for name, loss in self._losses.items())

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.close()


class PartProgress:
    """Progress of work in several parts, each with its own bar."""

    def __init__(self, shown: bool = True, unit: str = "answer") -> None:
        self._shown, self._unit, self._what = shown, unit, ""
        self._progress: Progress | None = None

    def __enter__(self) -> PartProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many of a part are done."""
        if self._progress is None or what != self._what:
            self.close()
            self._what = what
            self._progress = Progress(what, total, self._unit, shown=self._shown)
        self._progress.to(done)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.close()


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _is_live() -> bool:
    """Whether a bar can move: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(what: str, total: int | None, unit: str) -> Any:
    from tqdm.auto import tqdm

    # smoothing=0: the time left comes from all units so far, not from the latest few.
    form = {"bar_format": _FORMAT} if total else {}
    return tqdm(total=total, desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True, smoothing=0, **form)
