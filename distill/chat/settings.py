"""How a conversation with a student is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import UsageError
from distill.models.settings import GenerateSettings
from distill.settings import setting


@dataclass(frozen=True, slots=True)
class ChatSettings(GenerateSettings):
    """How the student answers, who else may be asked, and where conversations are saved.

    Attributes:
        model: what the user named, for the rows that are saved.
    """

    model: str = ""
    max_tokens: int = setting(512, min=1, metavar="N", help="Maximum length of an answer, in tokens.")
    seed: int = setting(0, metavar="N", help="Random seed for sampling; each /retry takes the next one.")
    teacher: str | None = setting(
        None, metavar="NAME[:MODEL]", help="The teacher that answers at /teacher, e.g. openai:gpt-5-mini."
    )
    base_url: str | None = setting(None, metavar="URL", help="The teacher's server, e.g. http://localhost:8000/v1.")
    teacher_options: Mapping[str, Any] = setting(
        dict,
        "--teacher-option",
        "-T",
        key="teacher-options",
        metavar="KEY=VALUE",
        help="An option of the teacher; may be repeated.",
    )
    save: Path = setting(Path("chat.jsonl"), metavar="FILE", help="The file of transcripts that /save adds to.")

    def __post_init__(self) -> None:
        GenerateSettings.__post_init__(self)
        if self.teacher is None and (self.base_url is not None or self.teacher_options):
            raise UsageError("--base-url and --teacher-option go with --teacher", "add --teacher NAME")
