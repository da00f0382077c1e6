"""Locks on files and folders: one process writes, and another one learns who it is."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill.errors import DistillError

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)

log = logging.getLogger("distill")


def take_lock(descriptor: int, path: str | Path) -> None:
    """Lock an open file for as long as its descriptor is open.

    Where the file system knows no locks (some NFS and FUSE mounts), this warns, and goes without.

    Args:
        descriptor: the open file's.
        path: what is locked, for errors.

    Raises:
        DistillError: another process has the lock; names it, as far as the system tells.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            who = _holder(descriptor)
            raise DistillError(
                f"{path}: another process is writing to it{who}", "wait for it, or choose another one"
            ) from None
        log.warning("%s cannot be locked (%s): make sure that no other process writes to it", path, error.strerror)


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own a file or folder, which need not exist yet, while the block runs: by the file `.NAME.lock` beside it.

    Raises:
        DistillError: another process owns it, or the folder that it is in cannot be written.
    """
    lock = path.absolute().with_name(f".{path.absolute().name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open(lock)
    except OSError as error:
        raise DistillError(f"{path}: {error.strerror}", "choose a place that can be written") from None
    try:
        take_lock(descriptor, path)
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()
    finally:
        os.close(descriptor)


def _open(lock: Path) -> int:
    """Open the lock's file, and not one that its owner is just deleting."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Who holds a file's lock, by Linux's list of locks; empty where that does not tell."""
    inode = os.fstat(descriptor).st_ino
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
                return f" (process {words[4]})"
    return ""
