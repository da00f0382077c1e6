"""What a collection would cost, before the first request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from distill.collection.budget import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE, size_of
from distill.collection.conversation import Conversation
from distill.collection.output import check_output, read_done, whole_rows
from distill.collection.plan import Plan, make_plan
from distill.collection.prompts import PromptInput
from distill.collection.settings import CollectSettings
from distill.collection.shards import OutputFiles
from distill.plugins import PluginManager, make_plugin_manager
from distill.types import Source

GUESSED_ANSWER = 300
"""Tokens of an answer where nothing else is known."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a collection would ask for.

    Attributes:
        rows: transcripts it would write.
        cached: rows that are in the file.
        duplicates: rows that ask for what an earlier row of the prompt file asks for.
        requests: it would send, if none fails; a conversation needs one a turn.
        tokens_in, tokens_out: estimated from the length of the texts.
        basis: where the length of an answer comes from.
        usd: estimated dollars; None where no price is known.
        usd_at_most: dollars with every answer at its token limit; None where there is no limit, or no price.
    """

    rows: int
    cached: int
    duplicates: int
    requests: int
    tokens_in: int
    tokens_out: int
    basis: str
    usd: float | None
    usd_at_most: float | None


def estimate(
    prompts: PromptInput, out: str | Path, settings: CollectSettings, manager: PluginManager | None = None
) -> Estimate:
    """Estimate what `collect` with the same arguments would ask for; nothing is asked, nothing is written.

    Raises:
        UsageError, DataError: as `collect`.
    """
    plan = make_plan(settings, manager or make_plugin_manager())
    found = plan.price()
    skipped: Counter[str] = Counter()
    answers = _Answers()
    files = OutputFiles.of(out, settings.part)
    with plan.open(prompts) as opened:
        plan.total(opened)
        check_output(files.target, opened.path)
        done = read_done(chain(*(answers.of(file) for file in (files.target, *files.earlier))), plan)
        each, basis = answers.mean(plan)
        rows = requests = sent = most = 0
        for job in plan.jobs(opened, done, lambda kind: skipped.update([kind])):
            if job is not None:
                rows += 1
                requests += job.turns_left
                sent += _sent(job, each, BYTES_PER_TOKEN)
                most += _sent(job, plan.answer_limit or 0, 1)
    answered = requests * each
    usd = None if found is None else round(found.for_tokens(sent, answered), 6)
    bound = None
    if found is not None and plan.answer_limit:
        bound = round(found.for_tokens(most, requests * plan.answer_limit), 6)
    return Estimate(rows, skipped["cached"], skipped["duplicates"], requests, sent, answered, basis, usd, bound)


def _sent(job: Conversation, answer: int, bytes_per_token: int) -> int:
    """Tokens sent for a conversation: each turn sends all that was said before it once more."""
    sent, total = 0, 0
    for turn in [
        (*job.prompt.teacher_messages, *job.prompt.messages),
        *([followup] for followup in job.prompt.followups),
    ]:
        sent += size_of(turn, () if total else job.prompt.tools) // bytes_per_token + TOKENS_PER_MESSAGE * len(turn)
        total += sent
        sent += answer
    return total


class _Answers:
    """How long the answers are that the file holds already."""

    def __init__(self) -> None:
        self._tokens = self._answers = 0

    def of(self, out: str | Path) -> Iterator[tuple[Source, dict[str, Any]]]:
        """The rows of the file; counts while they pass."""
        for source, row in whole_rows(out):
            usage = (row.get("metadata") or {}).get("usage") or {}
            tokens = usage.get("completion_tokens")
            if isinstance(tokens, int):
                self._tokens += tokens
                self._answers += sum(message.get("role") == "assistant" for message in row["messages"])
            yield source, row

    def mean(self, plan: Plan) -> tuple[int, str]:
        """Tokens an answer, and where that comes from."""
        if self._answers:
            return -(-self._tokens // self._answers), f"as the {self._answers} answers that are there"
        limit = plan.answer_limit
        if limit and limit < GUESSED_ANSWER:
            return limit, f"at the limit of {limit} tokens an answer"
        return GUESSED_ANSWER, f"{GUESSED_ANSWER} tokens an answer are a guess"
