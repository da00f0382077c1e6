"""Parameter lists of `distill/api.py`, made from the settings classes; cog writes them into the file."""

from __future__ import annotations

from collections.abc import Sequence

import cog

from distill.chat.settings import ChatSettings
from distill.collection.settings import CollectSettings, ScoreSettings
from distill.comparison.settings import CompareSettings
from distill.dataset.settings import DataSettings
from distill.models.settings import GenerateSettings
from distill.settings import Option, options_of
from distill.training.settings import TrainSettings
from distill.transcripts.settings import ReadSettings

LINE = 120

__all__ = [
    "ChatSettings",
    "CollectSettings",
    "CompareSettings",
    "DataSettings",
    "GenerateSettings",
    "ReadSettings",
    "ScoreSettings",
    "TrainSettings",
    "parameters",
]


def parameters(settings: type, *, leave_out: Sequence[str] = ()) -> None:
    """Print a keyword parameter for each option of a settings class, required ones first."""
    options = [option for option in options_of(settings) if option.name not in leave_out]
    for option in sorted(options, key=lambda option: not option.required):
        line = f"    {option.name}: {_annotation(option)}{_default(option)},"
        if len(line) > LINE:  # as ruff wraps it
            start, _, rest = line.partition("[")
            choices, _, end = rest.rpartition("]")
            line = f"{start}[\n        {choices}\n    ]{end}"
        cog.outl(line)


def _annotation(option: Option) -> str:
    if option.pairs:
        return "Mapping[str, Any] | None"
    if option.many:
        return "Sequence[str | Path]" if option.kind.__name__ == "Path" else "Sequence[str]"
    if option.kind.__name__ == "Path":
        return "str | Path"
    kind = option.kind.__name__
    if option.choices is not None and option.about.choices is None:
        kind = f"Literal[{', '.join(map(repr, option.choices))}]".replace("'", '"')
    if option.about.number:
        kind += " | int"
    return kind if not option.optional or option.nested is not None else f"{kind} | None"


def _default(option: Option) -> str:
    if option.required:
        return ""
    if option.kind is bool:
        return " = False"
    if option.pairs:
        return " = None"
    if option.optional and not option.many:
        return " = None"
    if option.kind.__name__ == "Path":
        return f' = "{option.usual}"'
    return f" = {option.usual!r}".replace("'", '"')
