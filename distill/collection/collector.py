"""`collect`: the whole of a collection, from a prompt file to a file of transcripts."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from distill.collection.adapters import make_askers
from distill.collection.budget import Meter, OutOfMoney
from distill.collection.conversation import Conversation
from distill.collection.output import Output, check_output, read_done
from distill.collection.plan import Plan, by_length, counter_of, make_plan
from distill.collection.progress import Live, dollars, short
from distill.collection.prompts import open_prompts
from distill.collection.rate_limit import Throttle
from distill.collection.schedule import Pool
from distill.collection.settings import CollectSettings
from distill.errors import TeacherError, one_line
from distill.files.jsonl import Appender, read_rows
from distill.plugins import PluginManager, make_plugin_manager
from distill.protocols import BatchTeacher, Teacher
from distill.types import CollectRun

log = logging.getLogger("distill")


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What a collection did. Every row asked for is in exactly one of rows, cached, failed, duplicates, left.

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
        usd: dollars this run cost; None where no price is known.
        left: rows that were not asked for, because the budget did not reach.
        stopped: why the run stopped before its end; None if it did not.
        others: rows in the file that this run did not ask for: of other prompts, or of another `system`.
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
    usd: float | None = None
    left: int = 0
    stopped: str | None = None
    others: int = 0


def collect(
    prompts: str | Path,
    out: str | Path,
    settings: CollectSettings,
    manager: PluginManager | None = None,
    *,
    progress: bool = False,
) -> CollectSummary:
    """Ask a teacher all prompts, and write its answers to a file of transcripts.

    Each row is on disk as soon as it is finished. Rows that are in the file are not asked for again, so that calling
    this again resumes where it was stopped.

    Args:
        prompts: a prompt file (see `open_prompts`); every row is checked before the first request.
        out: the file of transcripts, made or added to.
        settings: the teacher, how it answers, and limits of rate and money.
        manager: the plugins; default: those that are installed.
        progress: whether to show a live line on standard error, where that is a terminal.

    Raises:
        UsageError: a setting does not fit, or the file has rows by another teacher or with other parameters.
        DataError: a prompt, or a row of the file, is malformed.
        DistillError: the teacher failed for good, or the file cannot be written; the rows until then are saved.
        KeyboardInterrupt: after Ctrl-C, when the answers in flight have been waited for (SIGTERM: as its handler does).
    """
    began = time.perf_counter()
    manager = manager or make_plugin_manager()
    plan = make_plan(settings, manager)
    meter = Meter(plan.price(), settings.max_usd, plan.answer_limit)
    skipped: Counter[str] = Counter()
    with open_prompts(prompts) as file:
        total = plan.total(file)
        check_output(out, prompts)
        with Appender(out) as appender, Live(total, progress) as live:
            output = open_output(appender, plan, manager, live)
            jobs = plan.jobs(file, total, output.done, counter_of(skipped, live.skip))
            live.numbers = _numbers(output, meter, skipped, total)
            try:
                pool = _ask(plan, jobs, output, meter)
            finally:
                output.close()
    if pool is not None:
        _raise_what_stopped(pool, output)
    return summary_of(output, pool, meter, skipped, total, time.perf_counter() - began)


def summary_of(
    output: Output, pool: Pool | None, meter: Meter, skipped: Counter[str], total: int, seconds: float
) -> CollectSummary:
    """Make the summary of a run; `pool` is None where nothing was asked."""
    return CollectSummary(
        out=str(output.run.out),
        rows=output.rows,
        cached=skipped["cached"],
        failed=output.failed,
        duplicates=skipped["duplicates"],
        cut=output.cut,
        requests=pool.requests if pool else 0,
        usage=output.usage,
        seconds=round(seconds, 3),
        reasons=dict(output.reasons.most_common()),
        usd=None if meter.usd is None else round(meter.usd, 6),
        left=total - output.rows - output.failed - skipped.total(),
        stopped=pool.error.message if pool and pool.error else None,
        others=len(output.done) - skipped["cached"],
    )


def open_output(appender: Appender, plan: Plan, manager: PluginManager, live: Live) -> Output:
    """Read what is in the file of transcripts, and make ready to write to it.

    Raises:
        UsageError: it has rows by another teacher or with other parameters, and the settings do not say `append`.
        DataError: it has a malformed row.
    """
    if appender.quarantined:
        log.warning("%s: its last row was cut short; moved to %s.quarantine", appender.path, appender.path)
    done = read_done(read_rows(appender.path), plan.teacher.name, plan.sent, plan.settings.append)
    run = CollectRun(appender.path, plan.teacher.name)
    return Output(appender, run, plan.sent, manager, plan.teacher.owner, done, live.row)


def _numbers(output: Output, meter: Meter, skipped: Counter[str], total: int) -> Callable[[], str]:
    """What the live line says behind its bar."""
    began = time.monotonic()

    def text() -> str:
        seconds = max(time.monotonic() - began, 0.001)
        ended = output.rows + output.failed
        parts = [f"{output.failed} failed"] if output.failed else []
        parts += [f"{skipped['cached']} cached"] if skipped["cached"] else []
        if meter.usd is not None:
            whole = meter.usd / ended * (total - skipped.total()) if ended else 0.0
            parts.append(f"{dollars(meter.usd)} of about {dollars(whole)}")
        parts += [f"{short(meter.asked / seconds)} requests/s"]
        parts += [f"{short((meter.tokens_in + meter.tokens_out) / seconds)} tokens/s"] if meter.answers else []
        return ", ".join(parts)

    return text


def _ask(plan: Plan, jobs: Iterator[Conversation | None], output: Output, meter: Meter) -> Pool | None:
    """Build the teacher and ask it, if there is anything to ask."""
    first = next((job for job in jobs if job is not None), None)
    if first is None:
        return None
    built = plan.teacher.build()
    work = _ask_all(built, plan, chain([first], jobs), output, meter)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as beside:  # in a notebook: this thread has a loop already
        return beside.submit(asyncio.run, work).result()


async def _ask_all(
    built: Teacher | BatchTeacher,
    plan: Plan,
    jobs: Iterator[Conversation | None],
    output: Output,
    meter: Meter,
) -> Pool:
    settings, owner = plan.settings, plan.teacher.owner
    try:
        askers, size = make_askers(built, owner, settings.concurrency)
        jobs = by_length(jobs, size) if size > 1 else jobs
        throttle = Throttle(len(askers), meter, settings.rpm, settings.tpm)
        pool = Pool(jobs, askers, size, settings.retries, output, throttle)
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
    if pool.error is not None and not isinstance(pool.error, OutOfMoney):
        raise pool.error
    if pool.signum is not None:
        log.warning("stopped: %d rows are saved in %s; the same command goes on from there", rows, out)
        signal.raise_signal(pool.signum)  # now to whoever handled it before: Python, or the command line
