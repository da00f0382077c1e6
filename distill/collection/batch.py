"""OpenAI's half-price batches in two steps: write what is to be asked as request files, read the answer files back."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from distill.collection.adapters import checked
from distill.collection.budget import Meter, Price
from distill.collection.conversation import Conversation
from distill.collection.output import Output, check_output, read_done, whole_rows
from distill.collection.plan import Plan, counter_of, make_plan
from distill.collection.prompts import PromptInput
from distill.collection.row_id import IdSet
from distill.collection.settings import CollectSettings
from distill.collection.shards import OutputFiles, claimed
from distill.collection.summary import CollectSummary, summary_of
from distill.errors import DataError, DistillError, UsageError
from distill.files.atomic import whole_file
from distill.files.jsonl import Appender, dumps, rows_with_offsets
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import Progress
from distill.protocols import BatchFileTeacher
from distill.types import Request

log = logging.getLogger("distill")

MOST_ROWS = 50_000
"""Requests in one file, as OpenAI takes them."""
MOST_BYTES = 190_000_000
"""Bytes of one file; OpenAI takes 200 MB."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What was written for a batch.

    Attributes:
        files: the request files.
        requests: in all of them.
        cached: rows that were in the file of transcripts already.
        duplicates: rows that ask for what an earlier row asks for.
    """

    files: Sequence[str]
    requests: int
    cached: int
    duplicates: int


def write_batch(
    prompts: PromptInput,
    out: str | Path,
    requests: str | Path,
    settings: CollectSettings,
    manager: PluginManager | None = None,
) -> BatchSummary:
    """Write what `out` lacks as request files: `requests`, and further ones with a number where one is not enough.

    Args:
        requests: the first request file; it must not exist.
        prompts, out, settings, manager: as in `collect`.

    Raises:
        UsageError: the teacher has no batches, a prompt has several turns, or the file exists: its rows may be on
            their way, and would be bought twice.
        DataError: a prompt, or a row of `out`, is malformed.
    """
    plan = make_plan(settings, manager or make_plugin_manager())
    built = _batch_teacher(plan)
    if Path(requests).exists():
        hint = "read its answers with --batch-answers, then delete it: what has an answer is not asked again"
        raise UsageError(f"{requests} exists, and its requests may be on their way", hint)
    skipped: Counter[str] = Counter()
    files = OutputFiles.of(out, settings.part)
    with plan.open(prompts) as opened:
        plan.total(opened)
        check_output(files.target, opened.path)
        done = read_done(chain(*map(whole_rows, (files.target, *files.earlier))), plan)
        jobs = plan.jobs(opened, done, lambda kind: skipped.update([kind]))
        lines = (dumps(built.batch_request(job.id, _only_request(job))) for job in jobs if job is not None)
        written, rows = _write_parts(lines, Path(requests))
    return BatchSummary(written, rows, skipped["cached"], skipped["duplicates"])


def _write_parts(lines: Iterable[str], path: Path) -> tuple[list[str], int]:
    """Write lines to as many files as they need: all of them appear, or none."""
    files, rows, size, part = [], 0, 0, None
    try:
        with ExitStack() as stack:
            for line in lines:
                length = len(line.encode()) + 1
                if part is None or rows % MOST_ROWS == 0 or size + length > MOST_BYTES:
                    name = path if part is None else path.with_name(f"{path.stem}.{len(files) + 1}{path.suffix}")
                    if name.exists():
                        raise UsageError(f"{name} exists, and its requests may be on their way", "choose another name")
                    part, size = stack.enter_context(whole_file(name)), 0
                    files.append(str(name))
                part.write(line + "\n")
                size += length
                rows += 1
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", "choose a file that can be written") from None
    return files, rows


def read_batch(
    prompts: PromptInput,
    out: str | Path,
    answers: Sequence[str | Path],
    settings: CollectSettings,
    manager: PluginManager | None = None,
    *,
    progress: bool = False,
) -> CollectSummary:
    """Write the answers of a batch as transcripts; what failed goes to the file of failed rows.

    It may be called again with the same files, or with more of them: a row that is there is passed over. Rows without
    an answer are `left`, for the next batch.

    Args:
        answers: the batch's output files and error files.
        settings: as in `collect`; a published price is halved.
        prompts, out, manager, progress: as in `collect`.

    Raises:
        UsageError, DataError, DistillError: as `collect`; also where a line of `answers` has no `custom_id`.
    """
    began = time.perf_counter()
    manager = manager or make_plugin_manager()
    plan = make_plan(settings, manager)
    built = _batch_teacher(plan)
    price = plan.price()
    if price is not None and settings.price is None:
        price = Price(price.input / 2, price.output / 2, price.cached / 2)
    meter = Meter(price)
    skipped: Counter[str] = Counter()
    lines = _Answers(answers)
    files = OutputFiles.of(out, settings.part)
    with plan.open(prompts) as opened:
        total = plan.total(opened)
        check_output(files.target, opened.path)
        watch = Progress("reading answers", total, "row", shown=progress)
        with claimed(settings.part, Path(out)), Appender(files.target) as appender, watch:
            output = Output(appender, plan, manager, watch.advance, files.earlier)
            try:
                for job in plan.jobs(opened, output.done, counter_of(skipped, watch.skip)):
                    row = lines.take(job.id) if job else None
                    if job is not None and row is not None:
                        _settle(job, row, built, output, meter)
            finally:
                output.close()
    strange = lines.left(output.done)
    if strange:
        log.warning("%d answers belong to no row asked for here: other prompts, teacher or parameters", strange)
    return summary_of(output, meter, skipped, total, time.perf_counter() - began)


def _settle(job: Conversation, row: Any, teacher: BatchFileTeacher, output: Output, meter: Meter) -> None:
    request = _only_request(job)
    try:
        answer = checked(teacher.batch_answer(row), output.owner)
        if isinstance(answer, DistillError):
            raise answer
        meter.settle([request], (), [answer])
        job.take(answer)
    except DistillError as error:
        output.fail(job, error)
    else:
        output.save(job)


class _Answers:
    """Answer files, with an index of their rows: the answers themselves stay on disk."""

    def __init__(self, paths: Sequence[str | Path]):
        self._places: dict[str, tuple[str, int]] = {}
        for path in map(str, paths):
            for source, row, at in rows_with_offsets(path):
                id = row.get("custom_id")
                if not isinstance(id, str):
                    raise DataError(f"{source}: no `custom_id`", "give the output file or the error file of a batch")
                if _is_answered(row) or id not in self._places:  # what failed in one batch may be answered in the next
                    self._places[id] = (path, at)

    def take(self, id: str) -> dict[str, Any] | None:
        """The row of an id, once; None where there is none."""
        path, at = self._places.pop(id, (None, 0))
        if path is None:
            return None
        with open(path, "rb") as file:
            file.seek(at)
            row: dict[str, Any] = json.loads(file.readline())
            return row

    def left(self, done: IdSet) -> int:
        """How many rows were not taken and are not done."""
        return sum(id not in done for id in self._places)


def _is_answered(row: Mapping[str, Any]) -> bool:
    """Whether a line of an answer file holds an answer, in OpenAI's (and vLLM's) shape or in Anthropic's."""
    response, result = row.get("response"), row.get("result")
    if isinstance(result, dict):
        return result.get("type") == "succeeded"
    return not row.get("error") and isinstance(response, dict) and response.get("status_code") == 200


def _only_request(job: Conversation) -> Request:
    if job.prompt.followups:
        where = job.prompt.source or "a prompt"
        raise UsageError(f"{where}: the row has several turns, and a batch has one", "collect it without --batch")
    return job.request()


def _batch_teacher(plan: Plan) -> BatchFileTeacher:
    teacher = plan.teacher.build()
    if not isinstance(teacher, BatchFileTeacher):
        raise UsageError(f"teacher {plan.teacher.name!r} has no batches", "leave --batch out")
    return teacher
