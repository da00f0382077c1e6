"""A server that went away: no requests but a probe now and then, until it is back."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from distill.errors import TeacherError

FIRST_PROBE = 1.0
"""Seconds before the first probe."""
GROWTH = 1.5
"""How much longer each pause is than the one before."""
LAST_PROBE = 15.0
"""Seconds between two probes at most."""
DOWN_ROWS = 3
"""Different rows in a row for which a gateway reports that the server behind it is away."""

log = logging.getLogger("distill")


class Outage:
    """A gate that closes while the server is away. Make it inside the event loop.

    Args:
        patience: seconds that an outage may last; 0: there is no waiting, and each row pays with its tries.
    """

    def __init__(self, patience: float):
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._until = self._next = self._pause = 0.0
        self._probing = self._closed = False
        self._changed = asyncio.Event()
        self._down: set[str] = set()

    @property
    def on(self) -> bool:
        """Whether the server is away."""
        return self._since is not None

    def explains(self, error: TeacherError, row: str, *, proven: bool, probing: bool = False) -> bool:
        """Whether a failure comes from the server's absence, and not from the row: then it costs no try.

        Args:
            error: the failure.
            row: the row's id.
            proven: whether the server has answered before, in this run.
            probing: whether the request was a probe.

        Raises:
            TeacherError: the server has been away for longer than the user's patience.
        """
        if not self._patience or not (error.unreachable or error.down):
            return False
        if not self.on:
            self._down.add(row)
            begins = proven if error.unreachable else len(self._down) >= DOWN_ROWS
            if not begins:
                return False
            self._begin(error)
        if self._loop.time() >= self._until:
            what = f"{error.message}; the server was away for {spoken(self._patience)}"
            raise TeacherError(what, error.hint, fatal=True)
        # A request that broke on its way was perhaps what the server died of: it costs a try.
        return probing or not error.maybe_paid

    def answered(self) -> None:
        """The server answered, be it with an error: it is there."""
        self._down.clear()
        if self._since is not None:
            log.warning("the server is back after %s", spoken(self._loop.time() - self._since))
            self._since = None
            self._wake()

    async def wait(self) -> bool:
        """Wait until the server is back, or until it is this caller's turn to probe.

        Returns:
            Whether the caller's request is a probe: it must call `probed` at its end.
        """
        while self.on and not self._closed:
            left = self._next - self._loop.time()
            if left <= 0 and not self._probing:
                self._probing = True
                return True
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LAST_PROBE if self._probing else left)
        return False

    def close(self) -> None:
        """Let all go who wait: nobody asks any more."""
        self._closed = True
        self._wake()

    def probed(self) -> None:
        """A probe has come to its end."""
        self._probing = False
        self._pause = min(self._pause * GROWTH, LAST_PROBE)
        self._next = min(self._loop.time() + self._pause, max(self._until, self._loop.time() + 0.1))
        self._wake()

    def _begin(self, error: TeacherError) -> None:
        now = time.time()
        clock = [time.strftime("%H:%M:%S", time.localtime(at)) for at in (now, now + self._patience)]
        log.warning("%s; waiting for the server since %s, until %s (--patience)", error.message, *clock)
        self._since = self._loop.time()
        self._until = self._since + self._patience
        self._pause = FIRST_PROBE
        self._next = self._since + FIRST_PROBE

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def spoken(seconds: float) -> str:
    """A time span in words: 25 s, 10 min, 11 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes or not hours))
