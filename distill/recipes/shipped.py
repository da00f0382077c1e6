"""The recipe that comes with distill: `distill quickstart` writes it into a folder and runs it there."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from distill.errors import DistillError

_FILES = ("quickstart.yaml", "prompts.jsonl", "recorded-answers.jsonl", "held-out.jsonl")


def write_quickstart(folder: Path) -> Path:
    """Write the quickstart's recipe and its prompts; files that are there already stay as they are.

    Args:
        folder: where to; it is made.

    Returns:
        The recipe's path.

    Raises:
        DistillError: the folder cannot be written.
    """
    shipped = resources.files("distill.recipes").joinpath("quickstart")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if not (folder / name).exists():
                (folder / name).write_bytes(shipped.joinpath(name).read_bytes())
    except OSError as error:
        raise DistillError(f"{error.filename or folder}: {error.strerror}", "choose another --out") from None
    return folder / _FILES[0]
