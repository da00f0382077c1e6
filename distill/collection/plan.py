"""What is asked, of whom and how: the same for a collection, its estimate, and both steps of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from distill.collection.budget import Price, find_price, parse_price
from distill.collection.conversation import Conversation
from distill.collection.prompts import COMMON_PARAMS, PromptInput, PromptReader, Prompts, open_prompts
from distill.collection.row_id import IdSet, all_params, row_id
from distill.collection.settings import AskSettings, CollectSettings
from distill.collection.teachers import NamedTeacher
from distill.errors import DataError, UsageError
from distill.plugins import PluginManager
from distill.types import Params, Prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of each prompt.

    Attributes:
        teacher: who is asked.
        settings: how it answers, and how often.
        sent: all that the answers depend on besides the messages, as rows keep it.
    """

    teacher: NamedTeacher
    settings: CollectSettings
    sent: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sent", all_params(self.settings.params, self.teacher.options))

    def open(self, prompts: PromptInput) -> AbstractContextManager[Prompts]:
        """Open prompts, with the settings' system messages; see `open_prompts`."""
        settings = self.settings
        return open_prompts(prompts, PromptReader(settings.system, settings.teacher_prompt, settings.allow_unknown))

    def total(self, prompts: Prompts) -> int:
        """Check every prompt, and tell how many rows are asked for.

        Raises:
            DataError: a prompt is malformed, or there is none.
            UsageError: a prompt has parameters that the teacher does not take.
        """
        count = rows = 0
        samples, part = self.settings.samples, self.settings.part
        for prompt in prompts.read(self.settings.limit):
            if prompt.params:
                self._check_params(prompt)
            count += 1
            rows += samples if part is None else sum(part.owns(self.row_id(prompt, n)) for n in range(samples))
        if not count:
            raise DataError(f"{prompts.name}: no prompt in it", prompts.hint)
        return rows

    def jobs(self, prompts: Prompts, done: IdSet, skipped: Callable[[str], None]) -> Iterator[Conversation | None]:
        """Go through what is to be asked, row by row.

        Args:
            prompts: read lazily.
            done: rows that are there.
            skipped: told `cached` or `duplicates` for a row that is there, or comes twice.

        Yields:
            None for a row that needs no asking: thousands may follow each other.
        """
        seen, part = IdSet(), self.settings.part
        for prompt in prompts.read(self.settings.limit):
            for sample in range(self.settings.samples):
                id = self.row_id(prompt, sample)
                if part is not None and not part.owns(id):
                    pass
                elif not seen.add(id):
                    skipped("duplicates")
                elif id in done:
                    skipped("cached")
                else:
                    yield Conversation(id, prompt, sample, self.params_of(prompt))
                    continue
                yield None

    def row_id(self, prompt: Prompt, sample: int = 0) -> str:
        """The id of the row that answers a prompt."""
        return row_id(self.teacher.name, self.sent_with(prompt), prompt, sample)

    def sent_with(self, prompt: Prompt) -> dict[str, Any]:
        """What the answer to a prompt depends on besides the messages: the common parameters, and the prompt's own."""
        return all_params(self.params_of(prompt), self.teacher.options) if prompt.params else dict(self.sent)

    def params_of(self, prompt: Prompt) -> Params:
        """How a prompt is to be answered: a parameter of its own counts before the common one."""
        params = self.settings.params
        if not prompt.params:
            return params
        own = dict(prompt.params)
        named = {name: own.pop(name) for name in COMMON_PARAMS if name in own}
        return replace(params, **named, extra={**params.extra, **own})

    def _check_params(self, prompt: Prompt) -> None:
        """Refuse parameters that the teacher would ignore."""
        strange = [name for name in prompt.params if name not in COMMON_PARAMS]
        if strange and not self.teacher.takes_any_params:
            hint = f"leave it out; a prompt for it may have {', '.join(COMMON_PARAMS)}"
            raise UsageError(f"{prompt.source}: teacher {self.teacher.name!r} has no parameter {strange[0]!r}", hint)

    @property
    def answer_limit(self) -> int | None:
        """The most tokens an answer can have, where that is known."""
        return self.settings.max_tokens or getattr(self.teacher.options, "max_tokens", None)

    def price(self) -> Price | None:
        """The price that the user gave, or the teacher's published one; None: it is not known.

        Raises:
            UsageError: it is malformed, or there is a budget but no known price.
        """
        return price_of(self.teacher, self.settings, budget=self.settings.max_usd_total)


def price_of(teacher: NamedTeacher, settings: AskSettings, *, budget: float | None = None) -> Price | None:
    """The price that the user gave, or the teacher's published one; None: it is not known.

    Args:
        teacher: who is asked.
        settings: with the price, and the budget of the run.
        budget: another budget that must be kept.

    Raises:
        UsageError: the price is malformed, or there is a budget but no known price.
    """
    given = settings.price
    url = getattr(teacher.options, "api_url", None)
    price = parse_price(given) if given else find_price(url, teacher.model)
    if price is None and (settings.max_usd or budget) is not None:
        raise UsageError(
            f"the price of {teacher.name!r} is not known", "give --price IN/OUT, dollars per million tokens"
        )
    return price


def make_plan(settings: CollectSettings, manager: PluginManager) -> Plan:
    """Look the teacher up, and check its options.

    Raises:
        UsageError: something does not fit.
    """
    return Plan(settings.named_teacher(manager, logprobs=settings.logprobs), settings)


def counter_of(skipped: Counter[str], live: Callable[[], None]) -> Callable[[str], None]:
    """A `skipped` for `Plan.jobs` that counts, and tells the live line."""

    def skip(kind: str) -> None:
        skipped[kind] += 1
        live()

    return skip
