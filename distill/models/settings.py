"""How a model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.settings import check_settings, setting


@dataclass(frozen=True, slots=True)
class GenerateSettings:
    """How a student, or any local model, answers."""

    system: str | None = setting(None, metavar="TEXT", help="A system message before each prompt.")
    max_tokens: int = setting(256, min=1, metavar="N", help="Maximum length of an answer, in tokens.")
    temperature: float = setting(
        0.0, min=0, max=2, metavar="X", help="Sampling temperature; 0 takes the most likely token each time."
    )
    seed: int = setting(0, metavar="N", help="Random seed for sampling.")
    formatter: str | None = setting(
        None, metavar="NAME", unset="the one saved with the model, or ChatML", help="The chat format to ask in."
    )
    formatter_options: Mapping[str, Any] = setting(
        dict,
        "--formatter-option",
        "-F",
        key="formatter-options",
        metavar="KEY=VALUE",
        help="An option of the formatter; may be repeated.",
    )
    trust_remote_code: bool = setting(False, help="Run Python code that comes with the model.")

    def __post_init__(self) -> None:
        check_settings(self)
