"""Failures of a training: values that are not finite, and errors that mean too little memory or disk."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import DistillError
from distill.models.device import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

_NO_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
_BAD_DISK = ("Input/output error", "I/O error", "iostream error", "file write failed", "Read-only file system")
_NO_DISK = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos")


def check_finite_row(row: Mapping[str, float], kept: str | None) -> None:
    """Stop at the first loss or gradient that is not finite.

    Args:
        row: as a trainer logs it.
        kept: the last good checkpoint, if there is one.

    Raises:
        DistillError: names the step and the value.
    """
    for key, what in (("loss", "the loss"), ("grad_norm", "the gradient's norm"), ("eval_loss", "the held-out loss")):
        value = row.get(key)
        if value is not None and not math.isfinite(value):
            raise DistillError(
                f"{what} is {value} at step {int(row['step'])}; training stopped, no model was written",
                "lower --learning-rate, or look at the data with `distill show`"
                + (f"; {kept} holds the last good weights" if kept else ""),
            )


def check_finite_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        DistillError: names the weight.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise DistillError(
                f"after training, {name} holds values that are not finite; no model was written",
                "lower --learning-rate",
            )


def clear_failures(memory_hint: str, folder: Path) -> Callable[[str], AbstractContextManager[None]]:
    """Turn the many errors that mean "out of memory", "disk full" or "peer gone" into one line with a hint.

    Args:
        memory_hint: what to lower.
        folder: the folder that is written into.

    Returns:
        A function that takes what a block does ("training") and returns the context to run it in: it raises a
        DistillError in place of such an error, and lets all others pass.
    """

    @contextmanager
    def doing(what: str) -> Iterator[None]:
        try:
            yield
        except DistillError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise DistillError(f"out of memory while {what}: {_first_line(error)}", memory_hint) from error
            no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if no_space or _contains(error, _NO_DISK):
                raise DistillError(
                    f"the disk is full: {folder} could not be written while {what}",
                    "free some space, then run the same command with --resume",
                ) from error
            if _contains(error, _BAD_DISK):
                raise DistillError(
                    f"the disk failed: {folder} could not be written while {what}: {_first_line(error)}",
                    "look after it, then run the same command with --resume",
                ) from error
            if _is_unreadable(error):
                raise DistillError(
                    f"a file in {folder} cannot be read while {what}: it is damaged, or holds something other than "
                    "weights and numbers, which is never run",
                    "remove the newest checkpoint, then run the same command with --resume",
                ) from error
            no_peer = isinstance(error, RuntimeError) and _contains(error, _NO_PEER)
            if no_peer or type(error).__name__ == "DistBackendError":
                raise DistillError(f"another process ended while {what}", "see that process's own error") from error
            raise

    return doing


def _is_unreadable(error: Exception) -> bool:
    """Whether a checkpoint's file is none of what a trainer writes; torch reads them as weights only."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    return isinstance(error, (UnpicklingError, SafetensorError)) or _contains(error, ("PytorchStreamReader failed",))


def _contains(error: Exception, texts: tuple[str, ...]) -> bool:
    # torch's and safetensors' errors have no types of their own: they are recognised by their text.
    return any(text in str(error) for text in texts)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
