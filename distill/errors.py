"""The errors a user may meet. The message tells what went wrong and where; `hint` tells how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistillError(Exception):
    """A failure the user can fix: printed as `Error: …` and `Hint: …`, without a traceback.

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


class RefusedRow(DataError):
    """A row that can be read, but not as a conversation to learn from: preferences, ratings, images.

    It is skipped with its reason, and the other rows are read.

    Attributes:
        source: where the row was read, once that is known.
    """

    source: object = None

    @property
    def reason(self) -> str:
        """The message without the row's place."""
        return self.message.removeprefix(f"{self.source}: ")


class PluginError(DistillError):
    """A plugin broke its contract; the message names the plugin."""


class TeacherError(DistillError):
    """A teacher could not answer one request.

    Args:
        message: what the teacher (or its server) said.
        hint: what to do about it.
        retryable: whether asking again may help (timeouts, 429, 5xx, broken connections).
        retry_after: seconds the server asked to wait, if it did.
        fatal: whether every further request would fail the same way (wrong key, unknown model). Before the first good
            answer the run stops at once; after one, when many different rows in a row have met the same error.
        unreachable: whether no connection could be made at all (a server that is not running).
        throttled: whether the server is overloaded (429): the collector sends fewer requests at a time.
        maybe_paid: whether the request may have been billed although it failed (a timeout, a broken answer).
        down: whether the server seems to be away: a gateway reports it (502, 503), or the connection broke before the
            response. If several rows meet that, the collector waits for the server instead of counting retries.
        elsewhere: whether the teacher has another server for the request: it is asked again at once, and the failure
            does not count as a try; but for a row that has failed at servers many times.
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
        elsewhere: bool = False,
    ):
        super().__init__(message, hint)
        self.retryable = retryable
        self.retry_after = retry_after
        self.fatal = fatal
        self.unreachable = unreachable
        self.throttled = throttled
        self.maybe_paid = maybe_paid
        self.down = down
        self.elsewhere = elsewhere


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: raised by the command line's signal handler, as KeyboardInterrupt is by Python's.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


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


def one_line(error: BaseException) -> str:
    """Put an error into one printable line: its type and the first line of its text.

    A `DistillError`'s type is left out: its text is written for the user.
    """
    first = next(iter(str(error).strip().splitlines()), "")
    text = "".join(char if char.isprintable() else "?" for char in first)
    kind = type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, DistillError) else f"{kind}: {text}"
