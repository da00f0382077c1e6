"""Asks a teacher all jobs in an event loop, and raises what stopped it before the end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from distill.collection.adapters import make_askers
from distill.collection.budget import Meter, OutOfMoney, size_of
from distill.collection.evidence import Evidence
from distill.collection.rate_limit import Throttle
from distill.collection.schedule import Job, Pool, Recorder
from distill.collection.settings import AskSettings
from distill.collection.teachers import NamedTeacher
from distill.errors import TeacherError, one_line
from distill.pages.environment import counted
from distill.protocols import BatchTeacher, Teacher

log = logging.getLogger("distill")

WINDOW = 16
"""Batches that are sorted by length together."""

JobT = TypeVar("JobT", bound=Job)


def ask_all(
    teacher: NamedTeacher,
    built: Teacher | BatchTeacher,
    settings: AskSettings,
    jobs: Iterator[JobT | None],
    recorder: Recorder[JobT],
    meter: Meter,
    *,
    resumed: bool = False,
) -> Pool[JobT]:
    """Ask everything, or stop early.

    Args:
        teacher: who is asked.
        built: the same, built; it is closed at the end.
        settings: limits of rate and money.
        jobs: what to ask, read lazily; None for a row that needs no asking.
        recorder: is told of each job's end.
        meter: counts what is paid.
        resumed: whether the teacher has answered before.

    Returns:
        What was done; `raise_what_stopped` raises its error.
    """

    async def work() -> Pool[JobT]:
        try:
            askers, size = make_askers(built, teacher.owner, settings.concurrency)
            throttle = Throttle(len(askers), meter, settings.rpm, settings.tpm)
            ordered = by_length(jobs, size) if size > 1 else jobs
            evidence = Evidence(earlier=resumed)
            pool = Pool(ordered, askers, size, settings.retries, recorder, throttle, settings.patience, evidence)
            await pool.run()
            pool.servers = dict(built.servers()) if hasattr(built, "servers") else {}
            return pool
        finally:
            await _close(built, teacher.owner)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with ThreadPoolExecutor(1) as beside:  # in a notebook: this thread has a loop already
        return beside.submit(asyncio.run, work()).result()


async def _close(built: Teacher | BatchTeacher, owner: str) -> None:
    try:
        closing = built.close() if hasattr(built, "close") else None
        if inspect.isawaitable(closing):
            await closing
    except Exception as error:
        log.warning("%s failed in close(): %s", owner, one_line(error))


def by_length(jobs: Iterable[JobT | None], size: int) -> Iterator[JobT | None]:
    """Order jobs so that those asked in one batch are about equally long: less padding, the longest first.

    Args:
        jobs: read lazily, WINDOW batches at a time.
        size: jobs per batch.
    """
    jobs = iter(jobs)
    while window := list(islice(jobs, size * WINDOW)):
        yield from sorted(window, key=lambda job: -size_of(job.messages) if job else 0)


def raise_what_stopped(pool: Pool[JobT], teacher: str, out: str, rows: int) -> None:
    """Raise the error that ended a run before its end, or the signal; a used-up budget is none.

    Args:
        pool: the run.
        teacher: its name.
        out: the file that has the rows until then.
        rows: how many this run wrote.
    """
    error = pool.error
    if isinstance(error, TeacherError):
        saved = f"{counted(rows, 'row')} saved in {out}; the same command resumes" if rows else None
        hint = "; ".join(part for part in (error.hint, saved) if part)
        raise type(error)(f"teacher {teacher}: {error.message}", hint, fatal=True) from error
    if error is not None and not isinstance(error, OutOfMoney):
        raise error
    if pool.signum is not None:
        log.warning("stopped: %s saved in %s; the same command resumes", counted(rows, "row"), out)
        signal.raise_signal(pool.signum)  # now to whoever handled it before: Python, or the command line
