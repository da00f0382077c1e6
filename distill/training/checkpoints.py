"""Checkpoints that count: complete, verified, and just often enough. A stopped training goes on from the newest one.

A trainer writes `RUN/checkpoints/checkpoint-STEP/`; a checkpoint is complete when it holds `complete.json`, which is
written last and lists size and SHA-256 of every other file.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from distill.errors import DistillError
from distill.files.atomic import fsync, sha256_of, whole_file
from distill.protocols import Verdict
from distill.runs.checkpoints import MARKER, checkpoints_in, complete_checkpoints, remove, step_of
from distill.training.distributed import World

_EVERY = 15 * 60
"""Seconds between two checkpoints within an epoch, where the user names no number of steps."""

_SHARE = 10
"""Training takes at least so many times the seconds that its checkpoints take, ends of epochs or not."""


_DISK = 500e6
"""Bytes a second that a disk is taken to write, until the first checkpoint has shown how long one takes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to go on from.

    Attributes:
        newest: the newest complete checkpoint; None: none was ever completed.
        notes: a line for each newer one that cannot be used.
    """

    newest: Path | None
    notes: tuple[str, ...] = ()


def find_newest(folder: Path) -> Found:
    """Find the newest checkpoint whose files are all as they were written.

    Raises:
        DistillError: there were complete checkpoints, and every one is damaged.
    """
    notes, damaged = [], False
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
    """A trainer's checkpoints: when to write one, when to stop, and what makes one count.

    Args:
        folder: `RUN/checkpoints`.
        world: the processes of the training.
        save_steps: write one every so many steps; None: at the end of each epoch and every 15 minutes, as long as that
            takes no more than a tenth of the time.
        limit: how many complete ones are kept.
        size: bytes of one, about; to guess how long the first one takes.
        resume_from: the complete one that training goes on from.
        note: told of a stop.
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
        """Say what to do after an optimizer step; all processes get the same answer. See `distill.Checkpoints`."""
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
        return since >= self._cost * _SHARE and (epoch_end or since >= _EVERY)

    def seal(self, folder: Path) -> None:
        """Make a checkpoint count, its files being all written, and remove the oldest. See `distill.Checkpoints`."""
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
        self._world.highest(0)  # and none goes on before it is complete

    def newest(self) -> str | None:
        """The name of the newest complete one."""
        return next((path.name for path in complete_checkpoints(self.folder)), None)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While the block runs, the first SIGINT or SIGTERM stops the training after its step, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

        def first(signum: int, frame: FrameType | None) -> None:
            self.signum = signum
            for number, handler in handlers.items():
                signal.signal(number, handler)
            with suppress(RuntimeError):  # the signal came while something was being printed
                self._note("stopping after this step, with a checkpoint; once more to stop at once")

        for number in handlers:
            signal.signal(number, first)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def remove_unfinished(folder: Path) -> None:
    """Remove what was never completed: on a full disk it stands in the way."""
    for checkpoint in checkpoints_in(folder):
        if not (checkpoint / MARKER).is_file():
            remove(checkpoint)


def clean(folder: Path, newest: Path | None) -> None:
    """Remove what nobody can go on from: all but the complete checkpoints up to the one that training resumes from."""
    step = -1 if newest is None else step_of(newest)
    for checkpoint in checkpoints_in(folder):
        if step_of(checkpoint) > step or not (checkpoint / MARKER).is_file():
            remove(checkpoint)


def _folders(folder: Path) -> list[Path]:
    return [Path(top) for top, _, _ in os.walk(folder)]
