"""Atomic writes, hashes and timestamps."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from distill.errors import DistillError


def utc_now() -> str:
    """The time in UTC, to the second, as rows and manifests have it."""
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole_file(target: Path) -> Iterator[IO[str]]:
    """A text file to write, which replaces `target` when the block ends without an error."""
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path, *, replaceable: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends without an error, and is removed otherwise.

    Args:
        target: the folder to make; it must not exist at the end.
        replaceable: whether another process may have made the same folder meanwhile, as with a cache whose name is the
            hash of its content: then that one stays.

    Raises:
        DistillError: another process has made `target` meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield made
        made.chmod(0o777 & ~_umask())
        for file in made.rglob("*"):
            if file.is_file():  # safetensors makes its files readable for their owner only
                file.chmod(0o666 & ~_umask())
            fsync(file)
        fsync(made)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            if not replaceable:
                raise DistillError(f"{target}: another process has made it meanwhile", "choose another one") from None
        fsync(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
