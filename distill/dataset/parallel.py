"""Preparing chunks of rows on all cores, in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from distill.errors import DistillError

R = TypeVar("R")

_work: Callable[[Any], Any]  # what this process of the pool does


def map_chunks(work: Callable[[Sequence[Any]], R], chunks: Iterable[Sequence[Any]]) -> Iterator[R]:
    """Apply a function to chunks of rows, in as many processes as there are cores; results come in order.

    Processes are forked, so that plugins' objects need not be picklable; where that is not safe, or with one core, the
    work is done here.

    Args:
        work: chunk → result, which must be picklable.
        chunks: read as they are needed.

    Raises:
        DistillError: a process died.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if cores == 1 or "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        yield from map(work, chunks)
        return
    gc.freeze()  # no collection looks through the objects that exist now: they stay shared with the processes
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(cores, mp_context=context, initializer=_enter, initargs=(work, os.getpid()))
    waiting: deque[Future[R]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_do, chunk))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DistillError("a process that prepared rows died", "it may have run out of memory") from None
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


def _enter(work: Callable[[Any], Any], parent: int) -> None:
    """Set up a process of the pool."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork, and every core has its process
    gc.disable()  # it took a third of the time and found nothing: chunks are freed by reference counting
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Do not outlive a parent that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _do(chunk: Sequence[Any]) -> Any:
    return _work(chunk)
