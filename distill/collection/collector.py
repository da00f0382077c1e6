"""`collect`: the whole of a collection, from a prompt file to a file of transcripts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from distill.collection.asking import ask_all, raise_what_stopped
from distill.collection.budget import Meter
from distill.collection.conversation import Conversation
from distill.collection.output import Output, check_output
from distill.collection.plan import Plan, counter_of, make_plan
from distill.collection.progress import dollars, short
from distill.collection.prompts import PromptInput
from distill.collection.schedule import Pool
from distill.collection.settings import CollectSettings
from distill.collection.shards import OutputFiles, claimed
from distill.collection.summary import CollectSummary, summary_of
from distill.files.jsonl import Appender
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import Progress


def collect(
    prompts: PromptInput,
    out: str | Path,
    settings: CollectSettings,
    manager: PluginManager | None = None,
    *,
    progress: bool = False,
) -> CollectSummary:
    """Ask a teacher all prompts, and write its answers to a file of transcripts.

    Each row is on disk as soon as it is finished. Rows that are in the file are not asked for again, so that calling
    this again resumes an interrupted collection.

    Args:
        prompts: a prompt file, or prompts (see `open_prompts`); every row is checked before the first request.
        out: the file of transcripts, made or added to.
        settings: the teacher, how it answers, and limits of rate and money.
        manager: the plugins; default: those that are installed.
        progress: whether to show how far it is: a bar on a terminal or in a notebook, a line now and then in a log.

    Raises:
        UsageError: a setting does not fit, or the file has rows by another teacher or with other parameters.
        DataError: a prompt, or a row of the file, is malformed.
        DistillError: the teacher failed for good, or the file cannot be written; the rows until then are saved.
        KeyboardInterrupt: after Ctrl-C, when the answers in flight have been waited for (SIGTERM: as its handler does).
    """
    began = time.perf_counter()
    manager = manager or make_plugin_manager()
    plan, files = make_plan(settings, manager), OutputFiles.of(out, settings.part)
    meter = Meter(plan.price(), settings.budget, plan.answer_limit)
    skipped: Counter[str] = Counter()
    with plan.open(prompts) as opened:
        total = plan.total(opened)
        check_output(files.target, opened.path)
        watch = Progress("collecting", total, "row", shown=progress)
        with claimed(settings.part, Path(out)), Appender(files.target) as appender, watch:
            output = Output(appender, plan, manager, watch.advance, files.earlier, meter.price)
            if settings.max_usd_total is not None:
                shards = 1 if settings.part is None else settings.part.count
                meter.keep_total(settings.max_usd_total, output.spent_earlier, shards)
            jobs = plan.jobs(opened, output.done, counter_of(skipped, watch.skip))
            watch.text = _numbers(output, meter, skipped, total)
            try:
                pool = _ask(plan, jobs, output, meter)
            finally:
                output.close()
    seconds = time.perf_counter() - began
    if pool is None:
        return summary_of(output, meter, skipped, total, seconds)
    raise_what_stopped(pool, output.run.teacher, str(output.run.out), output.counts.rows)
    stopped = None if pool.error is None else str(pool.error)
    return summary_of(
        output, meter, skipped, total, seconds, requests=pool.requests, stopped=stopped, servers=pool.servers
    )


def _numbers(output: Output, meter: Meter, skipped: Counter[str], total: int) -> Callable[[], str]:
    """The text behind the progress bar."""
    began = time.monotonic()

    def text() -> str:
        seconds = max(time.monotonic() - began, 0.001)
        failed = output.counts.failed
        ended = output.counts.rows + failed
        parts = [f"{failed} failed"] if failed else []
        parts += [f"{skipped['cached']} cached"] if skipped["cached"] else []
        if meter.usd is not None:
            whole = meter.usd / ended * (total - skipped.total()) if ended else 0.0
            parts.append(f"{dollars(meter.usd)} of about {dollars(whole)}")
        parts += [f"{short(meter.asked / seconds)} requests/s"]
        parts += [f"{short((meter.tokens_in + meter.tokens_out) / seconds)} tokens/s"] if meter.answers else []
        return ", ".join(parts)

    return text


def _ask(plan: Plan, jobs: Iterator[Conversation | None], output: Output, meter: Meter) -> Pool[Conversation] | None:
    """Build the teacher and ask it, if there is anything to ask."""
    first = next((job for job in jobs if job is not None), None)
    if first is None:
        return None
    built, resumed = plan.teacher.build(), len(output.done) > 0
    return ask_all(plan.teacher, built, plan.settings, chain([first], jobs), output, meter, resumed=resumed)
