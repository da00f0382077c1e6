"""Memory that a training step frees is kept for the next one.

A step allocates the same large tensors as the one before. glibc returns each of them to the kernel when it is freed,
and the kernel clears every page when it hands them out again: on a CPU more than a tenth of a step. Here freed memory
stays in the process's heap. Its highest use is about the same, since the next step needs all of it again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = -1
_MIB = 2**20


@contextmanager
def kept_memory() -> Iterator[bool]:
    """Within this context, glibc's malloc keeps what is freed; afterwards it returns what it has kept.

    Yields:
        Whether it is in effect. False: the C library is another one, or the environment tunes malloc already.
    """
    libc = _glibc()
    if libc is None or _is_tuned():
        yield False
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield True
    finally:
        # Where glibc's own adjustment ends in a process that frees large blocks; mallopt has turned it off.
        libc.mallopt(_M_MMAP_MAX, 65536)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The process's C library, where it is glibc."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None


def _is_tuned() -> bool:
    """Whether the user has tuned malloc."""
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )
