"""Small sweeps: where `train` takes one value and a recipe has a list, it makes a student for each value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from distill.errors import UsageError
from distill.recipes.yaml_file import Loaded
from distill.settings import Option, options_of
from distill.training.settings import TrainSettings

_SECTION = "train"
_LONGEST = 100  # characters of a folder's name


@dataclass(frozen=True, slots=True)
class Variant:
    """One student of a recipe.

    Attributes:
        values: the keys in which the recipe's students differ → this one's value; empty: it is the only one.
        loaded: the recipe with this student's values in place of the lists.
    """

    values: Mapping[str, Any]
    loaded: Loaded

    @property
    def label(self) -> str | None:
        """`learning-rate=0.0001 labeler=copy`; None for the only student."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.values.items()) or None

    @property
    def stem(self) -> str:
        """The name of its run folder: `run`, `run-learning-rate-0.0001`."""
        parts = [part for key, value in self.values.items() for part in (key, _short(value))]
        return "-".join(["run", *parts])[:_LONGEST].rstrip("-.")


def variants(loaded: Loaded) -> Iterator[Variant]:
    """The students of a recipe: one, or one per combination of the values in its lists.

    Raises:
        UsageError: a value is in its list twice.
    """
    section = loaded.values.get(_SECTION)
    scalar = {option.key for option in options_of(TrainSettings) if option.about.recipe and not _many(option)}
    lists: dict[str, list[Any]] = {}
    if isinstance(section, Mapping):
        lists = {key: value for key, value in section.items() if key in scalar and isinstance(value, list) and value}
    for key, values in lists.items():
        for n, value in enumerate(values):
            if value in values[:n]:
                raise UsageError(
                    f"{loaded.where((_SECTION, key, n))}: {key} has {_text(value)} twice", "give each value once"
                )
    for places in product(*(range(len(values)) for values in lists.values())):
        chosen = dict(zip(lists, places, strict=True))
        given = {key: lists[key][n] for key, n in chosen.items()}
        places_of = dict(loaded.places)
        places_of.update(((_SECTION, key), loaded.places[_SECTION, key, n]) for key, n in chosen.items())
        sections = {**loaded.values, _SECTION: {**section, **given}} if given and section else loaded.values
        yield Variant(
            {key: value for key, value in given.items() if len(lists[key]) > 1},
            replace(loaded, values=sections, places=places_of),
        )


def _many(option: Option) -> bool:
    """Whether an option is a list, or a mapping, by nature."""
    return option.many or option.pairs


def _text(value: Any) -> str:
    """A value as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    """A value in a folder's name: the last part of a path or a Hub id, without characters that a shell minds."""
    last = _text(value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.") or "none"
