"""What a collection is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.collection.shards import Shard
from distill.collection.teachers import NamedTeacher, make_teacher
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.settings import check_settings, setting
from distill.types import Params

_SPEED = "Rate and retries"
_MONEY = "Cost"


@dataclass(frozen=True, slots=True)
class AskSettings:
    """Which teacher is asked, how fast, and for how much money."""

    teacher: str | NamedTeacher = setting(
        metavar="NAME[:MODEL]", help="The teacher to use, e.g. openai:gpt-5-mini (`distill plugins` lists them)."
    )
    base_url: tuple[str, ...] = setting(
        tuple,
        metavar="URL",
        help="The server, e.g. http://localhost:8000/v1; given several times, or as @FILE of URLs: several servers.",
    )
    teacher_options: Mapping[str, Any] = setting(
        dict,
        "--teacher-option",
        "-T",
        key="teacher-options",
        metavar="KEY=VALUE",
        help="An option of the teacher (`distill plugins --options` lists them); may be repeated.",
    )
    concurrency: int = setting(16, min=1, metavar="N", group=_SPEED, help="Maximum number of concurrent requests.")
    rpm: float | None = setting(None, above=0, metavar="N", group=_SPEED, help="Maximum requests per minute.")
    tpm: float | None = setting(
        None, above=0, metavar="N", group=_SPEED, help="Maximum tokens per minute, prompts and answers together."
    )
    timeout: float | None = setting(
        None, above=0, metavar="SECONDS", unset="the teacher's", group=_SPEED, help="Time limit for one whole request."
    )
    retries: int = setting(5, min=0, metavar="N", group=_SPEED, help="How many times a failed request is retried.")
    patience: float = setting(
        600.0,
        min=0,
        metavar="SECONDS",
        group=_SPEED,
        help="How long to wait for a server that went away, or for its limit to end; 0 for scripts.",
    )
    max_usd: float | None = setting(
        None,
        above=0,
        metavar="X",
        group=_MONEY,
        help="Budget for this run, in dollars; with --max-tokens it cannot be exceeded. Shards take equal parts of it.",
    )
    price: str | None = setting(
        None, metavar="IN/OUT", unset="the published price", group=_MONEY, help="Dollars per million tokens."
    )

    def __post_init__(self) -> None:
        given: Any = self.base_url
        if isinstance(given, str):  # one server, from Python
            object.__setattr__(self, "base_url", (given,))
        check_settings(self)
        if not isinstance(self.teacher, str) and (self.teacher_options or self.base_url):
            raise UsageError("a teacher that is made has its options", "give them to make_teacher")

    def named_teacher(self, manager: PluginManager, *, logprobs: int | None = None) -> NamedTeacher:
        """Look the teacher up and check its options.

        Args:
            manager: the plugins.
            logprobs: how many likeliest tokens it is to tell at each place of its own answers.

        Raises:
            UsageError: it is not known, or has no such option.
        """
        if isinstance(self.teacher, NamedTeacher):
            return self.teacher
        return make_teacher(
            manager,
            self.teacher,
            self.teacher_options,
            base_url=",".join(self.base_url) or None,
            timeout=self.timeout,
            logprobs=logprobs,
        )


@dataclass(frozen=True, slots=True)
class CollectSettings(AskSettings):
    """How a teacher answers prompts, besides how it is asked.

    A retried or resumed collection must have the same teacher, system, samples and parameters to find its rows; speed
    and money may change.
    """

    system: str | None = setting(None, metavar="TEXT", help="A system message for prompts without one.")
    teacher_system: str | None = setting(
        None,
        metavar="TEXT|@FILE",
        help="A system message that only the teacher sees; the student is neither trained on it nor given it.",
    )
    samples: int = setting(1, min=1, metavar="N", help="Answers per prompt.")
    max_tokens: int | None = setting(
        None, min=1, metavar="N", unset="the teacher's", help="Maximum length of an answer, in tokens."
    )
    temperature: float | None = setting(
        None, min=0, max=2, metavar="X", unset="the teacher's", help="Sampling temperature; 0 is greedy."
    )
    seed: int | None = setting(
        None, metavar="N", help="Sampling seed; sample number N of a prompt is asked with seed + N."
    )
    logprobs: int | None = setting(
        None, min=0, metavar="K", help="Keep each token's log probability, and its K most likely alternatives."
    )
    limit: int | None = setting(None, min=1, metavar="N", help="Use only the first N prompts.")
    shard: str | None = setting(
        None,
        recipe=False,
        metavar="I/N",
        help="Collect shard I (from 0) of N into NAME.shard-I.jsonl; `auto` takes both from a Slurm array or SkyPilot.",
    )
    allow_unknown: bool = setting(
        False, help="Keep unknown keys of prompt rows in their metadata, instead of refusing the row."
    )
    append: bool = setting(
        False, recipe=False, help="Add to a file that has rows from another teacher or with other parameters."
    )
    max_usd_total: float | None = setting(
        None,
        above=0,
        metavar="X",
        group=_MONEY,
        help="Budget for all runs into this file together, by the token counts of its rows.",
    )

    @property
    def params(self) -> Params:
        """How the teacher answers."""
        return Params(self.max_tokens, self.temperature, self.seed)

    @property
    def part(self) -> Shard | None:
        """The shard to collect; None: everything.

        Raises:
            UsageError: it is not `I/N`.
        """
        return None if self.shard is None else Shard.parse(self.shard, os.environ)

    @property
    def budget(self) -> float | None:
        """The dollars of this process: a shard's equal part of `max_usd`."""
        return self.max_usd if self.max_usd is None or self.part is None else self.max_usd / self.part.count

    @property
    def teacher_prompt(self) -> str | None:
        """The system message that only the teacher sees; `@FILE` is read.

        Raises:
            UsageError: the file cannot be read.
        """
        text = self.teacher_system
        if text is None or not text.startswith("@"):
            return text
        try:
            return Path(text[1:]).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--teacher-system {text}: {error}", "give a text, or @ and a UTF-8 file") from None


@dataclass(frozen=True, slots=True)
class ScoreSettings(AskSettings):
    """How a teacher scores answers that are there already."""

    logprobs: int = setting(20, min=0, metavar="K", help="Likeliest tokens per place.")
    limit: int | None = setting(None, min=1, metavar="N", help="Score only the first N rows.")
