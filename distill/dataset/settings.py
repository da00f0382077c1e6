"""How transcripts become training rows, as users say it: the options that `check`, `show` and `train` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from distill.settings import check_settings, setting
from distill.transcripts.settings import ReadSettings
from distill.transcripts.turns import Turns

Overlong = Literal["error", "drop", "truncate"]
"""What to do with rows that are longer than the student, or the user, allows."""

MAX_CHARACTERS = 4_000_000
"""Characters of a row that is tokenized at most: tokenizing takes 200 bytes of memory per character."""

DEFAULT_STUDENT = "bigscience/bloom-560m"

_FORMAT = "Formats and labels"


@dataclass(frozen=True, slots=True)
class DataSettings(ReadSettings):
    """The student, its chat format, and which tokens are trained."""

    student: str = setting(
        metavar="MODEL",
        assumed=DEFAULT_STUDENT,
        help="The student: a Hub id, a model folder, a .gguf file, or a plugin's model (smollm2).",
    )
    _: KW_ONLY
    trust_remote_code: bool = setting(
        False,
        help="Run Python code that comes with the model (`auto_map` in its config). Only for models you trust.",
    )
    formatter: str = setting(
        "chat-template",
        metavar="NAME",
        group=_FORMAT,
        help="The chat format: chat-template (the student's own, or ChatML), special-tokens, or a plugin's.",
    )
    formatter_options: Mapping[str, Any] = setting(
        dict,
        "--formatter-option",
        "-F",
        key="formatter-options",
        metavar="KEY=VALUE",
        group=_FORMAT,
        help="An option of the formatter, e.g. -F response='### Answer:' (`distill plugins --options` lists them); "
        "may be repeated.",
    )
    labeler: str = setting(
        "masked",
        metavar="NAME",
        group=_FORMAT,
        help="Which tokens count in the loss: copy (all), masked (the assistant's, with its end-of-turn marker), trl "
        "(like TRL's DataCollatorForCompletionOnlyLM), or a plugin's.",
    )
    labeler_options: Mapping[str, Any] = setting(
        dict,
        "--labeler-option",
        "-L",
        key="labeler-options",
        metavar="KEY=VALUE",
        group=_FORMAT,
        help="An option of the labeler, e.g. -L end_of_turn=false for trl, -L reasoning=false for masked; may be "
        "repeated.",
    )
    turns: Turns = setting(
        "all",
        group=_FORMAT,
        help="Which answers of a conversation are trained: all, or only the last. Answers with `weight: 0` or "
        "`train: false` never are.",
    )
    max_length: int | None = setting(
        None,
        min=2,
        metavar="N",
        group=_FORMAT,
        unset="the student's limit",
        help="Maximum length of a training row, in tokens.",
    )
    max_characters: int = setting(
        MAX_CHARACTERS,
        min=1,
        metavar="N",
        group=_FORMAT,
        help="Skip rows with more characters than this, before they are tokenized.",
    )
    allow: tuple[str, ...] = setting(
        (),
        metavar="CODE",
        group=_FORMAT,
        recipe=False,
        help="Accept this error of the label check; may be repeated.",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class CheckSettings(DataSettings):
    """What `check` checks beside the labels."""

    against: tuple[Path, ...] = setting(
        (),
        metavar="FILE",
        help="A hold-out file, none of whose prompts may appear in DATA; may be repeated.",
    )
