"""From `--teacher NAME[:MODEL]` to something that can be asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import UsageError, unknown_name
from distill.plugins import PluginManager
from distill.protocols import BatchTeacher, Teacher
from distill.specs import TeacherSpec

_FAMILIES = {r"(gpt|chatgpt|o[1-9])[-\d]": "openai", r"claude-": "anthropic"}
"""How models of well-known providers are called → the teacher that asks them."""


@dataclass(frozen=True, slots=True)
class NamedTeacher:
    """A teacher the user named, not built yet.

    Attributes:
        name: what the user wrote: it goes into each row and its id.
        model: what follows its first colon; None where there is none.
        owner: the plugin it comes from, as errors name it.
        options: its options object.
        build: builds it (may load a model); raises DistillError.
        takes_any_params: whether a prompt may have parameters of its own, such as `top_p`.
    """

    name: str
    model: str | None
    owner: str
    options: Any
    build: Callable[[], Teacher | BatchTeacher]
    takes_any_params: bool = False


def make_teacher(
    manager: PluginManager,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    base_url: str | None = None,
    timeout: float | None = None,
    logprobs: int | None = None,
) -> NamedTeacher:
    """Look a teacher up and check its options; it is built later, by its `build`.

    Args:
        manager: the plugins.
        name: `NAME` or `NAME:MODEL`; MODEL may hold colons. For a teacher that loads models, MODEL may be the name of
            a registered model; and such a name alone means the first teacher that loads models (`transformers:NAME`).
        options: `-T key=value`.
        base_url: the server; for a teacher with an option `base_url`.
        timeout: seconds a request may take; for a teacher with an option `timeout`.
        logprobs: how many likeliest tokens to tell at each place; for a teacher with an option `logprobs`.

    Raises:
        UsageError: an unknown name or option, or an option the teacher does not have.
    """
    kind, _, model = name.partition(":")
    if kind not in manager.teachers and name in manager.models:
        kind, model = _model_teacher(manager) or kind, name
    if kind not in manager.teachers:
        if meant := _with_its_teacher(manager, name):
            raise UsageError(f"unknown teacher {name!r}", f"did you mean {meant!r}?")
        local = _model_teacher(manager)
        more = f"{manager.failures()} " + (f"A local model is written {local}:PATH_OR_NAME." if local else "")
        raise unknown_name("teacher", kind, [*manager.teachers.names(), *manager.models.names()], more.strip())
    spec = manager.teachers.get(kind)
    values = dict(options or {})
    for key, value in (("base_url", base_url), ("timeout", timeout), ("logprobs", logprobs)):
        if value is not None:
            _add_option(spec, values, key, value)
    made = manager.teachers.options(kind, values)
    owner = manager.teachers.owner(kind).owner

    def build() -> Teacher | BatchTeacher:
        if not spec.loads_models:
            return manager.teachers.construct(kind, made, model or None)
        path = str(manager.models.get(model).path()) if model in manager.models else model or None
        return manager.teachers.construct(kind, made, path, manager)

    return NamedTeacher(name, model or None, owner, made, build, spec.any_params)


def _model_teacher(manager: PluginManager) -> str | None:
    """The teacher that the name of a local model means: the first one that loads models."""
    return next((spec.name for spec in manager.teachers if spec.loads_models), None)


def _with_its_teacher(manager: PluginManager, name: str) -> str | None:
    """`openai:gpt-5-mini` for `gpt-5-mini`, `transformers:FOLDER` for a folder: a model that lacks its teacher."""
    local = _model_teacher(manager)
    if Path(name).exists():
        teacher = "replay" if name.endswith((".jsonl", ".json")) else local
    else:
        teacher = next((kind for start, kind in _FAMILIES.items() if re.match(start, name)), None)
    return f"{teacher}:{name}" if teacher is not None and teacher in manager.teachers else None


def _add_option(spec: TeacherSpec, values: dict[str, Any], key: str, value: Any) -> None:
    flag = "--" + key.replace("_", "-")
    if key not in {field.name for field in dataclasses.fields(spec.options)}:
        raise UsageError(f"teacher {spec.name!r} has no {flag}", "leave it out")
    if key in values:
        raise UsageError(f"{flag} and -T {key}=… are both given", "leave one of them out")
    values[key] = value
