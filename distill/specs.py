"""What registration hooks return: a name, a line about it, its options and how to build it. Nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import UsageError, unknown_name
from distill.protocols import BatchTeacher, Formatter, Labeler, Teacher, Trainer

if TYPE_CHECKING:
    from distill.encode.encoder import Encoder


@dataclass(frozen=True)
class NoOptions:
    """For a plugin that takes none."""


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher the user may name: `--teacher NAME[:MODEL]`.

    Attributes:
        name: what the user writes.
        summary: one line for `distill plugins`.
        build: called once a collection with (options, MODEL or None), and the plugin manager where `loads_models`.
        options: a dataclass; its fields are the keys of `-T key=value`.
        loads_models: the teacher runs a model in this process. MODEL may then be the name of a registered model, and
            arrives as that model's path; `build` has a third argument, the plugin manager, for
            `distill.make_formatter(name, options, manager)`: the same plugins as the rest of the command, loaded once.
    """

    name: str
    summary: str
    build: Callable[..., Teacher | BatchTeacher]
    options: type = NoOptions
    loads_models: bool = False


@dataclass(frozen=True, slots=True)
class FormatterSpec:
    """A chat format the user may name: `--formatter NAME`. `options` gives the keys of `-F key=value`."""

    name: str
    summary: str
    build: Callable[[Any], Formatter]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class LabelerSpec:
    """A labeler the user may name: `--labeler NAME`. `options` gives the keys of `-L key=value`.

    `build` is called with (options, encoder): the encoder shows how the chosen formatter and tokenizer encode a
    conversation, for a labeler that must know it.

    Attributes:
        allows: errors of the label check that are this labeler's purpose, such as `partial-answer` for one that leaves
            out a part of answers: `check` and `train` accept them as if the user had said `--allow`.
    """

    name: str
    summary: str
    build: Callable[[Any, Encoder], Labeler]
    options: type = NoOptions
    allows: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TrainerSpec:
    """A trainer the user may name: `--trainer NAME`. `options` gives the keys of `-T key=value`.

    `options=dict` takes any key, with its value read as JSON where it is JSON; `build` checks them.
    """

    name: str
    summary: str
    build: Callable[[Any], Trainer]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A local model the user may name as `--student NAME`, `--teacher NAME` or in `distill generate NAME`.

    Attributes:
        path: called when the model is needed; gives a folder that `from_pretrained` loads (it may take its time
            to make it, and should say so on standard error).
    """

    name: str
    summary: str
    path: Callable[[], Path]


Spec = TeacherSpec | FormatterSpec | LabelerSpec | TrainerSpec | ModelSpec


def parse_pairs(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """Split `key=value` words.

    Raises:
        UsageError: a word without `=`, or a key given twice.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {pair!r} is not key=value")
        if key in parsed:
            raise UsageError(f"{flag} {key}=… is given twice")
        parsed[key] = value
    return parsed


def make_options(spec: Spec, values: Mapping[str, Any], kind: str) -> Any:
    """Build a spec's options object from what the user gave.

    Args:
        spec: whose options.
        values: key → value; a string is converted to the field's type, another value is taken as it is.
        kind: what the spec is ("teacher", …), for errors.

    Raises:
        UsageError: an unknown key (with the nearest one), a value that does not fit, or a key that is missing.
    """
    if spec.options is dict:
        return {key: _json_or_text(value) for key, value in values.items()}
    fields = {field.name: field for field in dataclasses.fields(spec.options) if field.init}
    hints = typing.get_type_hints(spec.options)
    what = f"option of {kind} {spec.name!r}:"
    made = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown_name(what, key, fields)
        made[key] = _convert(value, hints[key], f"{kind} {spec.name!r}: option {key}")
    missing = [
        name
        for name, field in fields.items()
        if name not in made and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{kind} {spec.name!r} needs the option {missing[0]}", f"add {missing[0]}=…")
    try:
        return spec.options(**made)
    except (TypeError, ValueError) as error:  # the plugin's own check, in __post_init__
        raise UsageError(f"{kind} {spec.name!r}: {error}") from None


def _json_or_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _convert(value: Any, hint: Any, what: str) -> Any:
    """Turn a string from the command line into the type of a dataclass field."""
    if not isinstance(value, str):
        return value
    choices = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value == "none" and type(None) in choices:
            return None
        hint = next(choice for choice in choices if choice is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise unknown_name(f"value for {what}:", value, typing.get_args(hint))
        return value
    kind = typing.get_origin(hint) or hint
    try:
        if kind is bool:
            return _BOOLS[value.lower()]
        if kind in (int, float):
            return kind(value)
        if kind in (dict, list, tuple, Mapping):
            parsed = json.loads(value)
            wanted = dict if kind in (dict, Mapping) else list
            if not isinstance(parsed, wanted):
                raise ValueError
            return tuple(parsed) if kind is tuple else parsed
    except (KeyError, ValueError):
        raise UsageError(f"{what} takes {getattr(kind, '__name__', kind)}, not {value!r}") from None
    return value
