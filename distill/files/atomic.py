"""Atomic writes, hashes and timestamps."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def naming(path: str | Path) -> Iterator[None]:
    """Name a file in the operating system's errors that do not name one: of a write or a sync."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def check_is_file(target: str | Path) -> None:
    """Make sure that an output is a file or does not exist yet, before anything is made for it.

    Raises:
        DistillError: it is a folder, a device or a pipe, `-`, or its name cannot be one.
    """
    hint = "choose a file that can be written"
    if str(target) == "-":
        raise DistillError("- is not a file: the output cannot go to a pipe", hint)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror}", hint) from None
    except ValueError as error:  # a null byte, or what the file system's encoding does not have
        raise DistillError(f"{str(target)!r} is no name for a file: {error}", hint) from None
    if stat.S_ISDIR(mode):
        raise DistillError(f"{target}: Is a directory", hint)
    if not stat.S_ISREG(mode):
        raise DistillError(f"{target} is a device or a pipe, not a file", hint)


@contextmanager
def whole_file(target: Path) -> Iterator[IO[str]]:
    """A text file to write, which replaces `target` when the block ends without an error.

    Raises:
        DistillError: there is something else than a file.
    """
    check_is_file(target)
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with naming(target), open(beside, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        with suppress(OSError):
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
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
