"""Settings: dataclasses whose fields carry their option once.

A field made by `setting(…)` says how users name it, what it means and what it may be. From these fields are made the
command line's options (`distill.cli.options`), the recipe's keys (`distill.recipes.schema`), the keyword arguments of
the Python API, and the checks that all three share.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distill.errors import UsageError, unknown_name

_KEY = "distill"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field says about its option.

    Attributes:
        help: one sentence or two, for `--help` and the docs.
        flags: the spellings on the command line, the long one first; default: `--` and the field's name.
        metavar: what stands for the value in `--help`.
        min, max: the bounds of a number; the value may be equal to them.
        above, below: bounds that the value may not be equal to.
        choices: the texts that are allowed; a Literal's are known without it.
        unset: what happens where it is None, for `--help`.
        group: the heading in `--help`.
        recipe: whether it is a key of recipes.
        key: the recipe's key, where it is not the long flag.
        name: the keyword of the Python API, where it is neither.
        number: whether a text may be given as a whole number.
        argument: whether it is no option but an argument: the command and the API say how it is given.
        commas: whether several values are one text, with commas between them.
        excludes: the Python name of an option that may not be given beside this one.
        assumed: the default for users, of a field that the class itself must be given.
    """

    help: str
    flags: Sequence[str] = ()
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Callable[[], Sequence[str]] | None = None
    unset: str | None = None
    group: str = ""
    recipe: bool = True
    key: str | None = None
    name: str | None = None
    number: bool = False
    argument: bool = False
    commas: bool = False
    excludes: str | None = None
    assumed: Any = None


def setting(default: Any = dataclasses.MISSING, *flags: str, help: str, **more: Any) -> Any:
    """Make a dataclass field that is an option.

    Args:
        default: its default; a callable makes a new one each time; none: the option must be given.
        flags: see `Setting`.
        help: see `Setting`.
        more: further attributes of `Setting`.
    """
    metadata = {_KEY: Setting(help, flags, **more)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a settings class, with its type.

    Attributes:
        field: the dataclass field it sets.
        about: what the field says about it.
        kind: bool, int, float, str or Path.
        optional: whether None is allowed.
        many: whether it may be given several times: a tuple of `kind`.
        pairs: whether it is `KEY=VALUE`, several times: a mapping.
        choices: the values that are allowed; None: any.
        default: dataclasses.MISSING where it must be given.
        nested: the settings class that this switch turns on; None for an ordinary option.
    """

    field: str
    about: Setting
    kind: type
    optional: bool
    many: bool
    pairs: bool
    choices: tuple[str, ...] | None
    default: Any
    nested: type[Any] | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The spellings on the command line, the long one first."""
        return tuple(self.about.flags) or ("--" + self.field.replace("_", "-"),)

    @property
    def key(self) -> str:
        """The key in a recipe."""
        return self.about.key or self.flags[0].removeprefix("--")

    @property
    def required(self) -> bool:
        """Whether users must give it."""
        return self.default is dataclasses.MISSING and self.about.assumed is None

    @property
    def usual(self) -> Any:
        """The value where users give none; None where they must."""
        return self.about.assumed if self.default is dataclasses.MISSING else self.default

    @property
    def name(self) -> str:
        """The keyword argument in Python."""
        return self.about.name or self.key.replace("-", "_")


def options_of(settings: type) -> tuple[Option, ...]:
    """The options of a settings class, in the order of its fields; those of a nested class follow their switch."""
    hints: dict[str, Any] = {}
    for base in reversed(settings.__mro__):
        hints.update(inspect.get_annotations(base, eval_str=True))
    found: list[Option] = []
    for one in dataclasses.fields(settings):
        about = one.metadata.get(_KEY)
        if about is not None and not about.argument:
            option = _option(one, about, hints[one.name])
            found.append(option)
            if option.nested is not None:
                found += (dataclasses.replace(inner, optional=True) for inner in options_of(option.nested))
    return tuple(found)


def _option(field: dataclasses.Field[Any], about: Setting, hint: Any) -> Option:
    kind, optional = hint, False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kind = typing.get_args(hint)[0]
        optional = types.NoneType in typing.get_args(hint)
    origin = typing.get_origin(kind)
    many, pairs = origin is tuple, origin is collections.abc.Mapping
    choices = tuple(about.choices()) if about.choices else None
    if many:
        kind = typing.get_args(kind)[0]
    elif pairs:
        kind = str
    elif origin is typing.Literal:
        kind, choices = str, typing.get_args(kind)
    nested: type[Any] | None = kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None
    return Option(
        field=field.name,
        about=about,
        kind=bool if nested else kind,
        optional=optional,
        many=many,
        pairs=pairs,
        choices=choices,
        default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
        nested=nested,
    )


def check_settings(settings: Any) -> None:
    """Check a settings object's values against what its fields say; for `__post_init__`.

    Raises:
        UsageError: a value has another type, is out of bounds, or none of the choices.
    """
    for option in _own_options(type(settings)):
        if option.nested is None:
            check_value(option, getattr(settings, option.field))


def check_value(option: Option, value: Any) -> None:
    """Check one option's value.

    Raises:
        UsageError: it has another type, is out of bounds, or none of the choices.
    """
    if value is None and option.optional:
        return
    if option.many or option.pairs:
        return
    name = option.flags[0].removeprefix("--")
    if option.choices is not None and value not in option.choices:
        raise unknown_name(name, str(value), option.choices)
    if option.kind not in (int, float):
        return
    wanted = int if option.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise UsageError(f"{name} is {value!r}; it must be a {'whole ' if option.kind is int else ''}number")
    if problem := _out_of_bounds(option.about, value):
        raise UsageError(f"{name} is {value:g}; it must be {problem}")


def _out_of_bounds(about: Setting, value: float) -> str | None:
    """What a number must be, where it is not."""
    if about.above is not None and not (math.isfinite(value) and value > about.above):
        return f"above {about.above}"
    if about.below is not None and not value < about.below:
        return f"below {about.below}"
    if about.min is not None and not (math.isfinite(value) and value >= about.min):
        return f"at least {about.min}"
    if about.max is not None and value > about.max:
        return f"at most {about.max}"
    return None


def settings_from(settings: type[T], words: Mapping[str, Any], **others: Any) -> T:
    """Build a settings object from option names and values.

    Args:
        settings: the class.
        words: Python names of options (see `Option.name`) → values; only those that were given.
        others: fields that are no options.

    Raises:
        UsageError: an unknown name, a value that does not fit, or an option whose switch is not given.
    """
    options = {option.name: option for option in options_of(settings)}
    for word in words:
        if word not in options:
            raise unknown_name("option", word, options)
        other = options[word].about.excludes
        if other in words:
            raise UsageError(
                f"{options[word].flags[0]} and {options[str(other)].flags[0]} exclude each other", "give one of them"
            )
    return settings(**others, **_fields_from(settings, words))


def origins_of(settings: type[Any], words: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Field → where its value comes from, for the options that were given."""
    origins = {}
    for option in _own_options(settings):
        inner = options_of(option.nested) if option.nested is not None else ()
        if any(one.name in words for one in (option, *inner)):
            origins[option.field] = origin
    return origins


def _own_options(settings: type[Any]) -> list[Option]:
    """The options without those of nested classes."""
    names = {one.name for one in dataclasses.fields(settings)}
    return [option for option in options_of(settings) if option.field in names]


def _fields_from(settings: type[Any], words: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in _own_options(settings):
        if option.nested is not None:
            values[option.field] = _nested(option, option.nested, words)
        elif option.name not in words:
            if option.about.assumed is not None:
                values[option.field] = option.about.assumed
        else:
            values[option.field] = _as_field(option, words[option.name])
    return values


def _as_field(option: Option, value: Any) -> Any:
    """A value as the field has it: tuples for lists, paths for texts."""
    if option.many:
        parts = value.split(",") if isinstance(value, str) and option.about.commas else value
        parts = [parts] if isinstance(parts, (str, Path)) else parts
        return tuple(option.kind(part.strip() if isinstance(part, str) else part) for part in parts if part)
    if option.about.number and isinstance(value, int):
        return str(value)
    return Path(value) if option.kind is Path else value


def _nested(switch: Option, nested: type[Any], words: Mapping[str, Any]) -> Any:
    """The settings behind a switch, such as `--lora`: None where it is off. A bool among them turns it on, too."""
    inner = {option.name: option for option in options_of(nested)}
    given = {name: words[name] for name in inner if words.get(name) is not None and words[name] is not False}
    on = words.get(switch.name) or any(inner[name].kind is bool for name in given)
    if not on and given:
        flag = inner[next(iter(given))].flags[0]
        raise UsageError(f"{flag} goes with {switch.flags[0]}", f"add {switch.flags[0]}, or leave {flag} out")
    return nested(**_fields_from(nested, given)) if on else None
