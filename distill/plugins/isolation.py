"""Running a plugin's code without letting it harm the process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from distill.files.signals import kept_handlers


@contextlib.contextmanager
def fenced() -> Iterator[None]:
    """Run a plugin's code: standard output belongs to the command's data, and Ctrl-C to the user."""
    with kept_handlers(), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def own_process_state() -> Iterator[None]:
    """Undo what code may do to the whole process: writing to file descriptor 1, changing the working directory."""
    folder = os.getcwd()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ValueError):  # a closed descriptor needs no protection
            sys.stdout.flush()
            saved = os.dup(1)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 1)
            os.dup2(2, 1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.chdir(folder)
