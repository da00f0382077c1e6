"""Shards: one collection split over jobs, each with a file of its own, that together ask for no row twice."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError, UsageError
from distill.files.atomic import whole_file

HEARTBEAT, STALE = 10.0, 60.0
"""Seconds between two heartbeats of a live shard, and without one until it counts as dead."""

_ENVIRONMENTS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS", ""),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a collection. A row belongs to the part that a hash of its id gives.

    Attributes:
        index: from 0 to `count` - 1.
        count: how many parts there are.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str]) -> Shard:
        """Read `I/N`, or `auto`: the place of this job in a Slurm array or among SkyPilot's jobs.

        Raises:
            UsageError: it is neither, or `auto` in a job that has no place.
        """
        if text == "auto":
            return cls._of_job(environ)
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or int(match[1]) >= int(match[2]):
            raise UsageError(f"--shard {text!r} is not I/N with I from 0 to N - 1", "the first of 4 shards is 0/4")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _of_job(cls, environ: Mapping[str, str]) -> Shard:
        for index, count, first in _ENVIRONMENTS:
            if index in environ and count in environ:
                return cls.parse(f"{int(environ[index]) - int(environ.get(first, 0))}/{environ[count]}", {})
        names = " or ".join(f"{index} and {count}" for index, count, _ in _ENVIRONMENTS)
        raise UsageError(f"--shard auto: {names} are not set", "give the shard as I/N, e.g. 0/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, id: str) -> bool:
        """Whether the row with this id belongs to the shard."""
        return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") % self.count == self.index

    def overlaps(self, other: Shard) -> bool:
        """Whether some row may belong to both: by the Chinese remainder theorem."""
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0

    def path(self, out: Path) -> Path:
        """The shard's own file: `answers.jsonl` → `answers.shard-2.jsonl`."""
        return out.with_name(f"{out.stem}.shard-{self.index}{out.suffix}")

    def siblings(self, out: Path) -> list[Path]:
        """All other files that may hold the shard's rows: `out`, and the files of shards of any number."""
        pattern = re.compile(re.escape(out.stem) + r"\.shard-\d+" + re.escape(out.suffix))
        found = [path for path in out.absolute().parent.iterdir() if pattern.fullmatch(path.name)]
        return sorted(path for path in (out, *found) if path.exists() and path.name != self.path(out).name)


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """The files of a collection.

    Attributes:
        target: the file that is written.
        earlier: other files whose rows are not asked for again: for a shard, those of its siblings.
    """

    target: Path
    earlier: tuple[Path, ...] = ()

    @classmethod
    def of(cls, out: str | Path, shard: Shard | None) -> OutputFiles:
        """The files of `--out`, or of a shard of it.

        Raises:
            DistillError: the folder of a shard's file does not exist.
        """
        if shard is None:
            return cls(Path(out))
        try:
            return cls(shard.path(Path(out)), tuple(shard.siblings(Path(out))))
        except OSError as error:
            raise _folder_error(out, error) from None


def _folder_error(out: str | Path, error: OSError) -> DistillError:
    return DistillError(f"{out}: {error.strerror}", "choose a folder that exists and can be written")


@contextmanager
def claimed(shard: Shard | None, out: Path) -> Iterator[None]:
    """Own a shard while the block runs; others see it by a file beside `out` that is touched every ten seconds.

    Args:
        shard: None: nothing to own.
        out: the `--out` that all shards share.

    Raises:
        DistillError: a live job has a shard with rows in common; names its host and process.
    """
    if shard is None:
        yield
        return
    folder = out.absolute().parent
    mine = folder / f".{out.name}.shard-{shard.index}-of-{shard.count}.owner"
    try:
        with _one_at_a_time(folder / f".{out.name}.shards.lock"):
            for path in folder.glob(f".{out.name}.shard-*.owner"):
                _refuse_if_alive(path, shard)
            with whole_file(mine) as file:
                json.dump({"shard": str(shard), **_here(), "pid": os.getpid()}, file)
    except OSError as error:
        raise _folder_error(out, error) from None
    ended = threading.Event()
    threading.Thread(target=_beat, args=(mine, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        mine.unlink(missing_ok=True)


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Two shards that start at once look at each other one after the other; where locks work (not on every NFS)."""
    with open(lock, "a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _refuse_if_alive(path: Path, shard: Shard) -> None:
    try:
        owner: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        theirs = Shard.parse(owner["shard"], {})
        age = time.time() - path.stat().st_mtime
    except (OSError, ValueError, KeyError, UsageError):  # it ended meanwhile, or its disk was full
        return
    if age > STALE or _is_dead(owner) or not shard.overlaps(theirs):
        return
    raise DistillError(
        f"shard {shard} would ask for rows of shard {theirs}, "
        f"which process {owner.get('pid')} on {owner.get('host')} is collecting",
        f"wait for it, or for {STALE:g} s after it was killed",
    )


def _here() -> dict[str, str]:
    """Where process numbers mean the same: containers on one host may each have numbers of their own."""
    here = {"host": socket.gethostname()}
    with suppress(OSError):
        here["processes"] = os.readlink("/proc/self/ns/pid")
    return here


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the process was on this machine, and is gone."""
    if any(owner.get(key) != value for key, value in _here().items()):
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError):
        return False
    return False


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(path)
