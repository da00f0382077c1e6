"""Writing a page, where nothing but an older page of ours is in the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distill.errors import DistillError, UsageError
from distill.files.atomic import whole_file
from distill.pages.environment import GENERATOR

_HEAD = 4096  # bytes that are looked at


def check_page_target(target: Path) -> None:
    """Refuse to overwrite anything but a page that distill wrote: a typing mistake must not cost a file of transcripts.

    Raises:
        UsageError: `target` is another file, or its folder does not exist.
        DistillError: it cannot be read.
    """
    try:
        with open(target, "rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise UsageError(f"{target}: there is no folder {target.parent}", "make it first") from None
        return
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file to write to") from None
    if head and GENERATOR.encode() not in head:
        raise UsageError(f"refusing to overwrite {target}: it is not a page that distill wrote", "give another file")


def write_page(target: Path, html: str | Iterable[str]) -> None:
    """Write a page, atomically.

    Args:
        target: the file. A page of distill's is replaced; any other file is not.
        html: the page, or its pieces.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be written.
    """
    check_page_target(target)
    try:
        with whole_file(target) as file:
            file.writelines([html] if isinstance(html, str) else html)
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file that can be written") from None
