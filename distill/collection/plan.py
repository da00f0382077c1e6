"""What shall be asked, of whom and how: the same for a collection, its estimate, and both steps of a batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from distill.collection.budget import Price, find_price, parse_price, size_of
from distill.collection.conversation import Conversation
from distill.collection.prompts import PromptFile
from distill.collection.row_id import IdSet, all_params, row_id
from distill.collection.teachers import NamedTeacher, make_teacher
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.types import Params

WINDOW = 16
"""Batches that are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of each prompt.

    Attributes:
        teacher: who is asked.
        params: how to answer.
        system: a system message for prompts without one.
        samples: answers a prompt.
        limit: take only so many prompts.
        sent: all that the answers depend on besides the messages, as rows keep it.
    """

    teacher: NamedTeacher
    params: Params
    system: str | None = None
    samples: int = 1
    limit: int | None = None
    sent: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sent", all_params(self.params, self.teacher.options))

    def total(self, file: PromptFile) -> int:
        """Check every prompt, and tell how many rows are asked for.

        Raises:
            DataError: a prompt is malformed, or there is none.
        """
        return file.count(self.limit) * self.samples

    def jobs(
        self, file: PromptFile, total: int, done: IdSet, skipped: Callable[[str], None]
    ) -> Iterator[Conversation | None]:
        """Go through what is to be asked, row by row.

        Args:
            file: the prompts, read lazily.
            total: as `total` counted them.
            done: rows that are there.
            skipped: told `cached` or `duplicates` for a row that is there, or comes twice.

        Yields:
            None for a row that needs no asking: thousands may follow each other.
        """
        seen = IdSet()
        for prompt in file.read(self.system, self.limit):
            for sample in range(self.samples):
                id = row_id(self.teacher.name, self.sent, prompt, sample)
                if not seen.add(id):
                    skipped("duplicates")
                elif id in done:
                    skipped("cached")
                else:
                    yield Conversation(id, prompt, sample, self.params)
                    continue
                yield None

    @property
    def answer_limit(self) -> int | None:
        """The most tokens an answer can have, where that is known."""
        return self.params.max_tokens or getattr(self.teacher.options, "max_tokens", None)

    def price(self, given: str | None, needed: bool = False) -> Price | None:
        """The teacher's price.

        Args:
            given: by the user, as `IN/OUT`; else it is looked up.
            needed: whether there must be one.

        Raises:
            UsageError: it is malformed, or there must be one and is none.
        """
        url = getattr(self.teacher.options, "api_url", None)
        price = parse_price(given) if given else find_price(url, self.teacher.model)
        if needed and price is None:
            raise UsageError(
                f"the price of {self.teacher.name!r} is not known", "give --price IN/OUT, dollars a million tokens"
            )
        return price


def make_plan(
    manager: PluginManager,
    teacher: str | NamedTeacher,
    options: Mapping[str, Any] | None,
    params: Params,
    system: str | None,
    samples: int,
    limit: int | None,
) -> Plan:
    """Check what shall be asked; the arguments are those of `collect`.

    Raises:
        UsageError: one of them does not fit.
    """
    at_least("samples", samples, 1)
    at_least("limit", limit, 1)
    at_least("max-tokens", params.max_tokens, 1)
    if params.temperature is not None and not (math.isfinite(params.temperature) and params.temperature >= 0):
        raise UsageError(f"temperature is {params.temperature}; it must be 0 or more")
    named = make_teacher(manager, teacher, options) if isinstance(teacher, str) else teacher
    return Plan(named, params, system, samples, limit)


def at_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        UsageError: it is below `least`.
    """
    if value is not None and value < least:
        raise UsageError(f"{name} is {value}; it must be at least {least}")


def by_length(jobs: Iterable[Conversation | None], size: int) -> Iterator[Conversation | None]:
    """Order jobs so that those asked in one batch are about equally long: less padding, the longest first.

    Args:
        jobs: read lazily, WINDOW batches at a time.
        size: jobs a batch.
    """
    jobs = iter(jobs)
    while window := list(islice(jobs, size * WINDOW)):
        yield from sorted(window, key=lambda job: -size_of(job.messages) if job else 0)


def counter_of(skipped: Counter[str], live: Callable[[], None]) -> Callable[[str], None]:
    """A `skipped` for `Plan.jobs` that counts, and tells the live line."""

    def skip(kind: str) -> None:
        skipped[kind] += 1
        live()

    return skip
