"""Checkpoints: complete, verified, and written just often enough. A stopped training resumes from the newest one.

A trainer writes `RUN/checkpoints/checkpoint-STEP/`; a checkpoint is complete when it holds `complete.json`, which is
written last and lists size and SHA-256 of every other file.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from distill.errors import DistillError
from distill.files.atomic import fsync, sha256_of, whole_file
from distill.files.signals import kept_handlers
from distill.protocols import Verdict
from distill.runs.checkpoints import MARKER, checkpoints_in, complete_checkpoints, remove, step_of
from distill.training.distributed import World

_EVERY = 15 * 60
"""Seconds between two checkpoints within an epoch, where the user names no number of steps."""

_MIN_RATIO = 10
"""Training takes at least this many times as long as its checkpoints do, at the ends of epochs too."""

_DISK = 500e6
"""Assumed bytes per second of a disk, until the first checkpoint has shown how long one takes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint to resume from.

    Attributes:
        newest: the newest complete checkpoint; None: none was ever completed.
        notes: one line for each newer one that cannot be used.
    """

    newest: Path | None
    notes: tuple[str, ...] = ()


def find_newest(folder: Path) -> Found:
    """Find the newest checkpoint whose files are all unchanged since they were written.

    Raises:
        DistillError: there were complete checkpoints, and every one is damaged.
    """
    notes: list[str] = []
    damaged = False
    for checkpoint in checkpoints_in(folder):
        problem = _problem(checkpoint)
        if problem is None:
            return Found(checkpoint, tuple(notes))
        notes.append(f"{checkpoint.name} cannot be used: {problem}")
        damaged = damaged or (checkpoint / MARKER).exists()
    if damaged:
        raise DistillError(
            f"no checkpoint in {folder} is whole: {'; '.join(notes)}",
            f"restore one from a backup, or remove {folder.parent} to start over",
        )
    return Found(None, tuple(notes))


def _problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None: nothing."""
    marker = checkpoint / MARKER
    if not marker.is_file():
        return "it was never completed"
    try:
        files = dict(json.loads(marker.read_text(encoding="utf-8"))["files"])
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if sha256_of(path) != digest:
                return f"{name} is not what was written"
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        return f"{MARKER} is damaged"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


class RunCheckpoints:
    """A trainer's checkpoints: when to write one, when to stop, and what completes one.

    Args:
        folder: `RUN/checkpoints`.
        world: the processes of the training.
        save_steps: write one every N steps; None: at the end of each epoch and every 15 minutes, as long as that takes
            at most a tenth of the time.
        limit: how many complete ones are kept.
        size: bytes of one, approximately; to guess how long the first one takes.
        resume_from: the complete one that training resumes from.
        note: called with a line when training is stopped.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        *,
        save_steps: int | None,
        limit: int,
        size: int = 0,
        resume_from: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
    ):
        self.folder = folder
        self.resume_from = resume_from
        self.signum = 0
        self.stopped_at: int | None = None
        self._world, self._note = world, note
        self._save_steps, self._limit = save_steps, limit
        self._saved = time.monotonic()  # when the last one was complete, or training began
        self._asked, self._cost = 0.0, size / _DISK

    def after_step(self, step: int, *, max_steps: int, epoch_end: bool) -> Verdict:
        """Decide what to do after an optimizer step, equally in all processes. See `distill.Checkpoints`."""
        signum, due = self._world.highest(self.signum, self._due(step, epoch_end and step < max_steps))
        self._asked = time.monotonic()
        if signum:
            self.signum, self.stopped_at = signum, step
            return "stop"
        return "save" if due else "go on"

    def _due(self, step: int, epoch_end: bool) -> bool:
        if self._save_steps is not None:
            return step % self._save_steps == 0
        since = time.monotonic() - self._saved
        return since >= self._cost * _MIN_RATIO and (epoch_end or since >= _EVERY)

    def seal(self, folder: Path) -> None:
        """Complete a checkpoint whose files are all written, and remove the oldest. See `distill.Checkpoints`."""
        self._world.highest(0)  # every process has written its files
        if self._world.is_main:
            files = {
                path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path))
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.name != MARKER
            }
            for path in (*(folder / name for name in files), *_folders(folder)):
                fsync(path)
            with whole_file(folder / MARKER) as file:
                json.dump({"step": step_of(folder), "files": files}, file, indent=1)
            fsync(folder)
            fsync(folder.parent)
            for old in complete_checkpoints(self.folder)[self._limit :]:
                remove(old)
        self._saved = time.monotonic()
        self._cost = self._saved - self._asked
        self._world.highest(0)  # no process continues before it is complete

    def newest(self) -> str | None:
        """The name of the newest complete one."""
        return next((path.name for path in complete_checkpoints(self.folder)), None)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While the block runs, the first SIGINT or SIGTERM stops the training after its step, the second at once."""
        with kept_handlers() as handlers:

            def first(signum: int, frame: FrameType | None) -> None:
                self.signum = signum
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                with suppress(RuntimeError):  # the signal came while something was being printed
                    self._note("stopping after this step, with a checkpoint; press again to stop at once")

            for number in handlers:
                signal.signal(number, first)
            yield


def remove_unfinished(folder: Path) -> None:
    """Remove what was never completed: it takes space on a full disk."""
    for checkpoint in checkpoints_in(folder):
        if not (checkpoint / MARKER).is_file():
            remove(checkpoint)


def clean(folder: Path, newest: Path | None) -> None:
    """Keep only complete checkpoints up to the one that training resumes from."""
    step = -1 if newest is None else step_of(newest)
    for checkpoint in checkpoints_in(folder):
        if step_of(checkpoint) > step or not (checkpoint / MARKER).is_file():
            remove(checkpoint)


def _folders(folder: Path) -> list[Path]:
    return [Path(top) for top, _, _ in os.walk(folder)]
