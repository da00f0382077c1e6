"""The console script. It handles Ctrl-C before it imports anything: imports are what a command begins with."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def run() -> None:
    """Run `distill` with the words of the command line, and end the process."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it is ignored
    if interruptible:
        signal.signal(signal.SIGINT, _end)
    from distill.cli.main import main

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
        if code > 128:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # it is ending already
        elif interruptible:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:  # just before `main` could take it, or the second one while it dealt with the first
        _end(signal.SIGINT, None)
    sys.exit(code)


def _end(signum: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun yet, or everything is done."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - nothing is imported for this
            stream.flush()
        except Exception:  # closed, or in the middle of a write
            pass
    os.write(2, b"Interrupted.\n")
    os._exit(128 + signum)
