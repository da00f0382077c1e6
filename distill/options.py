"""From the `key=value` words of a command line to a plugin's options object."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from distill.errors import UsageError, unknown_name


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """For a plugin without options."""


class HasOptions(Protocol):
    """A spec, as far as its options matter."""

    @property
    def name(self) -> str:
        """What the user writes to choose the plugin."""
        ...

    @property
    def options(self) -> type:
        """A dataclass, or `dict` for free-form options."""
        ...


def parse_pairs(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """Split `key=value` words.

    Args:
        pairs: the words, as the user typed them.
        flag: the option they belong to ("-T", …), for errors.

    Raises:
        UsageError: a word without `=`, or a key given twice.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {pair!r} is not key=value", f"write {flag} {key or 'key'}=VALUE")
        if key in parsed:
            raise UsageError(f"{flag} {key}=… is given twice")
        parsed[key] = value
    return parsed


def make_options(spec: HasOptions, values: Mapping[str, Any], kind: str) -> Any:
    """Build a spec's options object from what the user gave.

    A field with `metadata={"others": True}` takes the keys that no field has: a mapping, its values read as JSON where
    they are JSON.

    Args:
        spec: the plugin's spec.
        values: key → value; a string is converted to the field's type, any other value is taken as it is.
        kind: the kind of the plugin ("teacher", …), for errors.

    Returns:
        An instance of `spec.options`.

    Raises:
        UsageError: an unknown key (with the nearest one), a value that does not fit, or a missing key.
    """
    if spec.options is dict:
        return {key: _json_or_text(value) for key, value in values.items()}
    fields = {field.name: field for field in dataclasses.fields(spec.options) if field.init}
    hints = typing.get_type_hints(spec.options)
    others = next((name for name, field in fields.items() if field.metadata.get("others")), None)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key in fields:
            made[key] = _convert(value, hints[key], f"{kind} {spec.name!r}: option {key}")
        elif others is None:
            raise unknown_name(f"option of {kind} {spec.name!r}:", key, fields)
        else:
            made[others] = {**made.get(others, {}), key: _json_or_text(value)}
    missing = [name for name, field in fields.items() if name not in made and _is_required(field)]
    if missing:
        raise UsageError(f"{kind} {spec.name!r} needs the option {missing[0]}", f"add {missing[0]}=…")
    try:
        return spec.options(**made)
    except (TypeError, ValueError) as error:  # the plugin's own check, in __post_init__
        raise UsageError(f"{kind} {spec.name!r}: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class OptionHelp:
    """What a user needs to know of a plugin's option.

    Attributes:
        name: the key of `key=value`.
        type: its type, as people write it.
        default: its default; None where it must be given, or has none worth telling.
        meaning: from the options class's documentation; empty where it says nothing.
    """

    name: str
    type: str
    default: str | None
    meaning: str


def describe_options(options: type) -> list[OptionHelp]:
    """Describe the options of a plugin, from its options dataclass and the `Attributes:` of its docstring.

    Args:
        options: a dataclass, or `dict` for free-form options, which has none to tell.
    """
    if not dataclasses.is_dataclass(options):
        return []
    meanings = _attributes(options)
    return [
        OptionHelp(field.name, _type_text(field.type), _default_text(field), meanings.get(field.name, ""))
        for field in dataclasses.fields(options)
        if field.init
    ]


def _attributes(options: type) -> dict[str, str]:
    """Name → text, of a docstring's `Attributes:`; those of base classes too."""
    found: dict[str, str] = {}
    for base in reversed(options.__mro__):
        text = inspect.getdoc(base) if "__doc__" in vars(base) else ""
        _, _, section = (text or "").partition("Attributes:\n")
        margin = len(section) - len(section.lstrip(" "))  # none where the docstring begins with `Attributes:`
        names: list[str] = []
        for line in section.splitlines():
            started = re.match(rf" {{{margin}}}(\w+(?:, \w+)*): (.*)", line)
            if started:
                names = started[1].split(", ")
                found.update(dict.fromkeys(names, started[2]))
            elif line.startswith(" " * (margin + 4)):
                found.update({name: f"{found[name]} {line.strip()}" for name in names})
            elif line.strip():
                break
    return found


def _type_text(kind: Any) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return "|".join(_one_type(part) for part in text.split(" | ") if part != "None")


def _one_type(text: str) -> str:
    """A type that is no union, as people write it."""
    if choices := re.fullmatch(r"Literal\[(.*?)\]", text):
        return choices[1].replace("'", "").replace('"', "").replace(", ", "|")
    return {"str": "text", "int": "number", "float": "number", "bool": "true|false"}.get(text, "JSON")


def _default_text(field: dataclasses.Field[Any]) -> str | None:
    if field.default is dataclasses.MISSING or field.default is None:
        return None
    value = field.default
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _json_or_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _convert(value: Any, hint: Any, what: str) -> Any:
    """Turn a string from the command line into the type of a dataclass field.

    Text stays text, lists and mappings are read as JSON, everything else by pydantic's rules for strings.
    """
    if not isinstance(value, str):
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value == "none" and type(None) in typing.get_args(hint):
            return None
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        if len(choices) > 1:
            return _first_fitting(value, choices, what)
        hint = choices[0]
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise unknown_name(f"value for {what}:", value, typing.get_args(hint))
        return value
    kind = typing.get_origin(hint) or hint
    if kind in (dict, Mapping, list, tuple):
        return _validated(hint, value, what, as_json=True)
    return _validated(hint, value, what) if kind in (bool, int, float) else value


def _first_fitting(value: str, choices: Sequence[Any], what: str) -> Any:
    """The value as the first type of a union that takes it."""
    for choice in choices:
        try:
            return _convert(value, choice, what)
        except UsageError:
            continue
    names = [str(name) for choice in choices for name in typing.get_args(choice) or (choice.__name__,)]
    raise UsageError(f"{what} takes {' or '.join(names)}, not {value!r}")


def _validated(hint: Any, value: str, what: str, *, as_json: bool = False) -> Any:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(hint)
    try:
        return adapter.validate_json(value) if as_json else adapter.validate_python(value)
    except ValidationError:
        kind = getattr(typing.get_origin(hint) or hint, "__name__", str(hint))
        raise UsageError(f"{what} takes {kind}, not {value!r}") from None
