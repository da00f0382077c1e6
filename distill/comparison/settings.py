"""How a comparison is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from distill.collection.teachers import NamedTeacher, make_teacher
from distill.errors import UsageError
from distill.plugins import PluginManager
from distill.settings import check_settings, setting
from distill.transcripts.settings import ReadSettings

NOT_BETTER = 3
"""The exit code of a comparison whose student had to be better, and is not."""


@dataclass(frozen=True, slots=True)
class CompareSettings(ReadSettings):
    """What is compared with what."""

    base: str | None = setting(
        None, metavar="MODEL", unset="the model that RUN was trained from", help="The model to compare with."
    )
    teacher: str | NamedTeacher | None = setting(
        None,
        metavar="NAME[:MODEL]",
        help="Ask this teacher the same questions again, to compare with its recorded answers.",
    )
    teacher_options: Mapping[str, Any] = setting(
        dict,
        "--teacher-option",
        "-T",
        key="teacher-options",
        metavar="KEY=VALUE",
        help="An option of the teacher; may be repeated.",
    )
    prompted_base: bool = setting(
        False,
        help="Also ask the base with the prompt that only the teacher saw (`collect --teacher-system`), and compare.",
    )
    judge: str | NamedTeacher | None = setting(
        None, metavar="NAME[:MODEL]", help="Ask this teacher which answer is better, in both orders."
    )
    judge_options: Mapping[str, Any] = setting(
        dict,
        "--judge-option",
        "-J",
        key="judge-options",
        metavar="KEY=VALUE",
        help="An option of the judge; may be repeated.",
    )
    trust_remote_code: bool = setting(
        False, help="Run Python code that comes with the models. Only for models you trust."
    )
    max_tokens: int = setting(
        256, min=1, metavar="N", help="Maximum length of an answer of student and base, in tokens."
    )
    batch_size: int = setting(16, min=1, metavar="N", help="Conversations that are read, or answered, at a time.")
    limit: int | None = setting(None, min=1, metavar="N", help="Use only the first N conversations.")
    seed: int = setting(0, metavar="N", help="Random seed for the bootstrap.")

    def __post_init__(self) -> None:
        check_settings(self)
        for who, options in (("teacher", self.teacher_options), ("judge", self.judge_options)):
            if options and getattr(self, who) is None:
                raise UsageError(f"--{who}-option goes with --{who}", f"add --{who} NAME, or leave the option out")

    def named(self, manager: PluginManager) -> CompareSettings:
        """The same settings, with teacher and judge looked up and their options checked.

        Raises:
            UsageError: one is not known, or has no such option.
        """
        return replace(
            self,
            teacher=_named(manager, self.teacher, self.teacher_options),
            teacher_options={},
            judge=_named(manager, self.judge, self.judge_options),
            judge_options={},
        )

    @property
    def named_teacher(self) -> NamedTeacher | None:
        """The teacher, once it has been looked up by `named`."""
        return self.teacher if isinstance(self.teacher, NamedTeacher) else None

    @property
    def named_judge(self) -> NamedTeacher | None:
        """The judge, once it has been looked up by `named`."""
        return self.judge if isinstance(self.judge, NamedTeacher) else None


def _named(manager: PluginManager, who: str | NamedTeacher | None, options: Mapping[str, Any]) -> NamedTeacher | None:
    return make_teacher(manager, who, options) if isinstance(who, str) else who
