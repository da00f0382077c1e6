"""What may stand in a recipe: the long options of the commands, under the same names and rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from distill.collection.settings import CollectSettings
from distill.comparison.settings import CompareSettings
from distill.dataset.settings import CheckSettings
from distill.errors import UsageError, unknown_name
from distill.recipes.yaml_file import Loaded, Place, load_yaml
from distill.settings import Option, options_of
from distill.training.settings import TrainSettings


def _word(value: Any) -> str:
    """An option's value as the command line would have it: plugins convert and check words."""
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _words(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("takes a mapping, option: value")
    return {str(key): _word(item) for key, item in value.items()}


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _share(value: Any) -> float:
    """`5%` → 0.05."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*%", value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError("takes a share such as 5%")
    return float(match[1]) / 100


Options = Annotated[dict[str, str], BeforeValidator(_words)]
Texts = Annotated[list[str], BeforeValidator(_list)]
Share = Annotated[float, BeforeValidator(_share)]
Text = Annotated[str, Field(min_length=1)]
TextOrNumber = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


_EMPTY = BeforeValidator(lambda value: {} if value is None else value)
"""For `check:` with nothing behind it."""


def _key(name: str) -> str:
    """`from_` → `from`, `max_failed` → `max-failed`."""
    return name.rstrip("_").replace("_", "-")


class Section(BaseModel):
    """A part of a recipe: `key-names` as on the command line, nothing unknown, no value of another type."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        alias_generator=_key,
    )

    option_names: ClassVar[frozenset[str]] = frozenset()
    """The fields that were made from a settings class."""

    def options(self) -> dict[str, Any]:
        """The options that the recipe gives, by their Python names: what `settings_from` takes."""
        return {name: getattr(self, name) for name in self.model_fields_set & self.option_names}


S = TypeVar("S", bound=Section)


def with_options_of(settings: type, *, only: Sequence[str] | None = None) -> Callable[[type[S]], type[S]]:
    """Decorate a section: it gets the options of a settings class, under the keys that they have on the command line.

    Args:
        settings: see `distill.settings`.
        only: take only these, by their Python names.
    """
    chosen = [one for one in options_of(settings) if one.about.recipe and (only is None or one.name in only)]
    fields: dict[str, Any] = {option.name: _field_of(option) for option in chosen}

    def decorate(section: type[S]) -> type[S]:
        made = create_model(section.__name__, __base__=section, __doc__=section.__doc__, **fields)
        made.option_names = frozenset(fields)
        return made

    return decorate


def _field_of(option: Option) -> tuple[Any, Any]:
    """An option as pydantic takes a field: its type, and its default and key."""
    about, annotation = option.about, cast(Any, option.kind)
    if option.many:
        annotation = Texts
    elif option.pairs:
        annotation = Options
    elif option.choices is not None:
        annotation = Literal[option.choices]
    elif option.kind in (int, float):
        annotation = Annotated[annotation, Field(ge=about.min, gt=about.above, le=about.max, lt=about.below)]
    elif option.kind is str:
        annotation = TextOrNumber if about.number else Text
    default = ... if option.required else [*option.usual] if option.many else option.usual
    return annotation | None if option.optional else annotation, Field(default, alias=option.key)


@with_options_of(CollectSettings)
class Collect(Section):
    """Options of `distill collect`, the file where several recipes keep their answers, and how many rows may fail."""

    out: Text | None = None
    max_failed: Share = 0.0


@with_options_of(CheckSettings, only=("against",))
class Check(Section):
    """The hold-out files of `distill check`, and which errors it accepts; all else is as under `train`."""

    allow: Texts = []


@with_options_of(TrainSettings)
class Train(Section):
    """Options of `distill train`."""


@with_options_of(CompareSettings)
class Compare(Section):
    """Options of `distill compare`, its hold-out files, and what the student must be (`require: better`)."""

    data: Texts = []
    require: Literal["better"] | None = None


class Recipe(Section):
    """A whole recipe."""

    prompts: Text
    out: Text
    collect: Collect
    check: Annotated[Check, _EMPTY] = Check()
    train: Annotated[Train, _EMPTY] = Train()
    compare: Annotated[Compare | None, _EMPTY] = None


def load_recipe(path: str | Path) -> tuple[Recipe, Loaded]:
    """Read a recipe and check its keys and values; whether the plugins know what it names is checked later.

    Raises:
        UsageError: names each thing that is wrong, with file, line and column.
    """
    loaded = load_yaml(path)
    return read_recipe(loaded), loaded


def read_recipe(loaded: Loaded) -> Recipe:
    """Check a recipe's keys and values; see `load_recipe`."""
    try:
        return Recipe.model_validate(dict(loaded.values))
    except ValidationError as error:
        found = [_problem(loaded, one) for one in error.errors(include_url=False, include_context=True)]
        message = "; ".join(one.message for one in found)
        raise UsageError(message, next((one.hint for one in found if one.hint), None)) from None


def _problem(loaded: Loaded, error: Mapping[str, Any]) -> UsageError:
    place: Place = tuple(error["loc"])
    where, key = loaded.where(place), ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        section = _section(place[:-1])
        known = [field.alias or name for name, field in section.model_fields.items()]
        wrong = unknown_name(f"key of {'.'.join(map(str, place[:-1])) or 'a recipe'}:", str(place[-1]), known)
        return UsageError(f"{where}: {wrong.message}", _elsewhere(str(place[-1]), section) or wrong.hint)
    if error["type"] == "missing":
        return UsageError(f"{where}: the recipe lacks `{key}`", f"add `{key}: …`")
    return UsageError(f"{where}: {key} {_WANTS.get(error['type']) or _plain(error)}")


def _section(place: Place) -> type[Section]:
    """The section that a place in the recipe is, by its keys."""
    found: type[Section] = Recipe
    for part in place:
        for name, field in found.model_fields.items():
            if (field.alias or name) == part:
                found = _model_of(field) or found
    return found


def _model_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds; None: it holds a value."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _elsewhere(key: str, section: type[Section]) -> str | None:
    """Where a key of another section belongs."""
    for name, place in Recipe.model_fields.items():
        other = _model_of(place)
        if other is None or other is section:
            continue
        if key in {field.alias for field in other.model_fields.values()}:
            return f"it belongs under `{name}`"
    return None


def _plain(error: Mapping[str, Any]) -> str:
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


_WANTS = {
    "int_type": "takes a whole number",
    "float_type": "takes a number",
    "bool_type": "takes true or false",
    "string_type": "must be a string; quote it",
    "string_too_short": "is empty",
    "list_type": "takes a list",
    "model_type": "takes a mapping, key: value",
    "finite_number": "takes a finite number",
}
"""What a key wants, by the type of pydantic's error."""
