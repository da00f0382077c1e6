"""The errors a user may meet. Each says what went wrong and where; `hint` says the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistillError(Exception):
    """A failure the user can mend: printed as `Error: …` and `Hint: …`, without a traceback.

    Args:
        message: what is wrong and where (file:line, row, plugin), on one line.
        hint: what to do about it, on one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DistillError):
    """The command line, or the call, asks for something that does not exist or does not fit (exit code 2)."""

    exit_code = 2


class DataError(DistillError):
    """A file or a row that cannot be read as what it should be; the message starts with `FILE:LINE`."""


class PluginError(DistillError):
    """A plugin broke its contract; the message names the plugin."""


class TeacherError(DistillError):
    """A teacher could not answer one request.

    Args:
        message: what the teacher (or its server) said.
        hint: what to do about it.
        retryable: whether asking again may help (timeouts, 429, 5xx, broken connections).
        retry_after: seconds the server asked to wait, if it said so.
        fatal: whether every further request would fail alike (wrong key, unknown model). Before the first good answer
            the run stops at once; after one, when many different rows in a row have met the same error.
        unreachable: whether no connection came about at all (a server that is not running).
        throttled: whether the server said that it is asked too much at a time (429): the collector asks less.
        maybe_paid: whether the request may have been paid for all the same (a timeout, a broken answer).
        down: whether a gateway says that the server behind it is away (502, 503): where it says so of several rows,
            the collector waits for the server instead of counting tries.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        fatal: bool = False,
        unreachable: bool = False,
        throttled: bool = False,
        maybe_paid: bool = False,
        down: bool = False,
    ):
        super().__init__(message, hint)
        self.retryable = retryable
        self.retry_after = retry_after
        self.fatal = fatal
        self.unreachable = unreachable
        self.throttled = throttled
        self.maybe_paid = maybe_paid
        self.down = down


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> UsageError:
    """Build the error for a name nobody registered: it shows the nearest name and all known ones.

    Args:
        kind: what was looked for ("formatter", "labeler option", …).
        name: what the user wrote.
        known: the names that exist.
        more: a further sentence for the hint.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(known) > 25:
        hint += f"near: {', '.join(near)}." if near else f"there are {len(known)}, none of them like it."
    else:
        hint += f"known: {', '.join(known)}." if known else "none is known."
    return UsageError(f"unknown {kind} {name!r}", f"{hint} {more}".strip())
