"""`collect`: the whole of a collection, from a prompt file to a file of transcripts."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from distill.collect.askers import make_askers
from distill.collect.conversation import Conversation
from distill.collect.ids import all_params, row_id
from distill.collect.output import Output, check_output, read_done
from distill.collect.prompts import open_prompts
from distill.collect.schedule import Pool
from distill.collect.teachers import NamedTeacher, make_teacher
from distill.errors import TeacherError, UsageError
from distill.jsonl import Appender
from distill.plugins import PluginManager, make_plugin_manager, one_line
from distill.protocols import BatchTeacher, Teacher
from distill.types import CollectRun, Params, Prompt

log = logging.getLogger("distill")


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What a collection did. Every row asked for is in exactly one of rows, cached, failed, duplicates.

    Attributes:
        out: the file of transcripts.
        rows: transcripts written by this run.
        cached: rows that were in the file already.
        failed: rows without a transcript; they are in `FILE.failed.jsonl` with their errors.
        duplicates: rows that ask for what an earlier row of the prompt file asks for.
        cut: written transcripts whose last answer ran into the token limit.
        requests: requests sent, retries included.
        usage: token counts of all answers, added up.
        seconds: how long it took.
        reasons: why rows failed, and how many for each reason.
    """

    out: str
    rows: int
    cached: int
    failed: int
    duplicates: int
    cut: int
    requests: int
    usage: Mapping[str, Any]
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)


def collect(
    prompts: str | Path,
    teacher: str | NamedTeacher,
    out: str | Path,
    *,
    manager: PluginManager | None = None,
    options: Mapping[str, Any] | None = None,
    params: Params = Params(),  # noqa: B008 - it is frozen
    system: str | None = None,
    samples: int = 1,
    concurrency: int = 16,
    retries: int = 5,
    limit: int | None = None,
    append: bool = False,
    progress: bool = False,
) -> CollectSummary:
    """Ask a teacher all prompts, and write its answers to a file of transcripts.

    Each row is on disk as soon as it is finished. Rows that are in the file are not asked for again, so that calling
    this again goes on where it was stopped.

    Args:
        prompts: a prompt file (see `open_prompts`); every row is checked before the first request.
        teacher: `NAME[:MODEL]`, or what `make_teacher` made of it.
        out: the file of transcripts, made or added to.
        manager: the plugins; default: those that are installed.
        options: the teacher's options, where it is given by name.
        params: how to answer.
        system: a system message for prompts without one.
        samples: answers a prompt.
        concurrency: requests in flight; a BatchTeacher has its own batch size instead.
        retries: how often a request is sent again when that may help.
        limit: take only so many prompts.
        append: add to a file that holds rows by another teacher or with other parameters.
        progress: whether to show a progress bar on standard error, where that is a terminal.

    Raises:
        UsageError: an argument does not fit, or the file has rows by another teacher or with other parameters.
        DataError: a prompt, or a row of the file, is malformed.
        DistillError: the teacher failed for good, or the file cannot be written; the rows until then are saved.
        KeyboardInterrupt: after Ctrl-C, when the answers in flight have been waited for (SIGTERM: as its handler does).
    """
    began = time.perf_counter()
    _check(params, samples, concurrency, retries, limit)
    manager = manager or make_plugin_manager()
    if isinstance(teacher, str):
        teacher = make_teacher(manager, teacher, options)
    sent = all_params(params, teacher.options)
    skipped: Counter[str] = Counter()
    with open_prompts(prompts) as file:
        total = file.count(limit) * samples
        check_output(out, prompts)
        with Appender(out) as appender, _bar(total, progress) as tick:
            if appender.quarantined:
                log.warning("%s: its last row was cut short; moved to %s.quarantine", out, out)
            done = read_done(out, teacher.name, sent, append)
            output = Output(appender, CollectRun(Path(out), teacher.name), sent, manager, teacher.owner, done, tick)
            jobs = _jobs(file.read(system, limit), teacher.name, params, sent, samples, output, skipped)
            try:
                pool = _ask(teacher, jobs, output, concurrency, retries)
            finally:
                output.close()
    if pool is not None:
        _raise_what_stopped(pool, output)
    return CollectSummary(
        out=str(out),
        rows=output.rows,
        cached=skipped["cached"],
        failed=output.failed,
        duplicates=skipped["duplicates"],
        cut=output.cut,
        requests=pool.requests if pool else 0,
        usage=output.usage,
        seconds=round(time.perf_counter() - began, 3),
        reasons=dict(output.reasons.most_common()),
    )


def _check(params: Params, samples: int, concurrency: int, retries: int, limit: int | None) -> None:
    least = {"samples": (samples, 1), "concurrency": (concurrency, 1), "retries": (retries, 0), "limit": (limit, 1)}
    least["max_tokens"] = (params.max_tokens, 1)
    for name, (value, minimum) in least.items():
        if value is not None and value < minimum:
            raise UsageError(f"{name.replace('_', '-')} is {value}; it must be at least {minimum}")
    if params.temperature is not None and not (math.isfinite(params.temperature) and params.temperature >= 0):
        raise UsageError(f"temperature is {params.temperature}; it must be 0 or more")


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar; gives the function to call at each row's end."""
    if not progress:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="row", file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
        yield bar.update


def _jobs(
    prompts: Iterator[Prompt],
    teacher: str,
    params: Params,
    sent: Mapping[str, Any],
    samples: int,
    output: Output,
    skipped: Counter[str],
) -> Iterator[Conversation | None]:
    """What is to be asked, row by row; None for a row that is there, or comes twice."""
    seen: set[str] = set()
    for prompt in prompts:
        for sample in range(samples):
            id = row_id(teacher, sent, prompt, sample)
            if id not in seen and id not in output.done:
                yield Conversation(id, prompt, sample, params)
            else:
                skipped["duplicates" if id in seen else "cached"] += 1
                output.tick()
                yield None
            seen.add(id)


def _ask(
    teacher: NamedTeacher, jobs: Iterator[Conversation | None], output: Output, concurrency: int, retries: int
) -> Pool | None:
    """Build the teacher and ask it, if there is anything to ask."""
    first = next((job for job in jobs if job is not None), None)
    if first is None:
        return None
    built = teacher.build()
    work = _ask_all(built, teacher.owner, chain([first], jobs), output, concurrency, retries)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as beside:  # in a notebook: this thread has a loop already
        return beside.submit(asyncio.run, work).result()


async def _ask_all(
    built: Teacher | BatchTeacher,
    owner: str,
    jobs: Iterator[Conversation | None],
    output: Output,
    concurrency: int,
    retries: int,
) -> Pool:
    try:
        askers, size = make_askers(built, owner, concurrency)
        pool = Pool(jobs, askers, size, retries, output)
        await pool.run()
        return pool
    finally:
        await _close(built, owner)


async def _close(built: Teacher | BatchTeacher, owner: str) -> None:
    try:
        closing = built.close() if hasattr(built, "close") else None
        if inspect.isawaitable(closing):
            await closing
    except Exception as error:
        log.warning("%s failed in close(): %s", owner, one_line(error))


def _raise_what_stopped(pool: Pool, output: Output) -> None:
    out, rows = output.run.out, output.rows
    if isinstance(pool.error, TeacherError):
        saved = f"{rows} rows are saved in {out}; the same command goes on from there" if rows else None
        hint = "; ".join(part for part in (pool.error.hint, saved) if part)
        raise TeacherError(f"teacher {output.run.teacher}: {pool.error.message}", hint, fatal=True) from pool.error
    if pool.error is not None:
        raise pool.error
    if pool.signum is not None:
        log.warning("stopped: %d rows are saved in %s; the same command goes on from there", rows, out)
        signal.raise_signal(pool.signum)  # now to whoever handled it before: Python, or the command line
