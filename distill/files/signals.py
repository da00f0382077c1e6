"""Signal handlers for a while: whoever had a signal before has it again afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which a user, a job scheduler or a closed terminal ends a command."""


@contextmanager
def kept_handlers(numbers: tuple[int, ...] = STOPPING) -> Iterator[Mapping[int, Handler]]:
    """Restore the handlers of some signals at the end of the block.

    Args:
        numbers: the signals; the block may handle them as it likes.

    Yields:
        The present handlers by number, without signals that are ignored (as under `nohup`): those stay ignored.
        Empty outside the main thread, where Python allows no change.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    try:
        yield {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
