"""What plugins register: the kinds of component, and a registry of specs for each."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from distill.errors import DistillError, PluginError, one_line, unknown_name
from distill.options import make_options
from distill.protocols import BatchTeacher, Exporter, Formatter, Labeler, Loss, Teacher, Trainer
from distill.specs import (
    DialectSpec,
    ExporterSpec,
    FormatterSpec,
    LabelerSpec,
    LossSpec,
    ModelSpec,
    Spec,
    TeacherSpec,
    TrainerSpec,
)

S = TypeVar("S", bound=Spec)
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of component that plugins register.

    Attributes:
        spec: what its registration hook returns.
        offers: the protocols of which a built component must have one; empty: nothing is built.
        plural: of the kind's name, where it is not an added `s`.
    """

    spec: type[Spec]
    offers: tuple[type, ...] = ()
    plural: str = ""

    def hook(self, kind: str) -> str:
        """The registration hook of the kind."""
        return f"register_{self.plural or kind + 's'}"


KINDS: Mapping[str, Kind] = {
    "teacher": Kind(TeacherSpec, (Teacher, BatchTeacher)),
    "formatter": Kind(FormatterSpec, (Formatter,)),
    "labeler": Kind(LabelerSpec, (Labeler,)),
    "trainer": Kind(TrainerSpec, (Trainer,)),
    "loss": Kind(LossSpec, (Loss,), plural="losses"),
    "exporter": Kind(ExporterSpec, (Exporter,)),
    "model": Kind(ModelSpec),
    "dialect": Kind(DialectSpec),
}


@dataclass(slots=True)
class PluginRecord:
    """What became of one plugin.

    Attributes:
        name: the entry point's name, the built-in module's, or the file's path.
        origin: `builtin`, `entry point` or `file`.
        distribution: the package it came in, and `version` of it.
        registers: kind → the names it registered ("command" included).
        hooks: the observer hooks it implements.
        seconds: how long importing and registering took.
        heavy: heavy modules that its import pulled in.
        error: why it is not loaded; None where it is.
    """

    name: str
    origin: str
    distribution: str | None = None
    version: str | None = None
    registers: dict[str, list[str]] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    heavy: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def owner(self) -> str:
        """The plugin as errors name it."""
        package = f" of {self.distribution} {self.version}" if self.distribution and self.origin != "builtin" else ""
        return f"plugin {self.name!r}{package}"


_KIND_NAMES = {"dialect": "data format"}
"""What users call a kind, where it is not its name."""


class Registry(Generic[S, B]):
    """The specs of one kind, by name, and what is built from them."""

    def __init__(self, kind: str, failures: Callable[[], str]):
        self.kind = kind
        self._failures = failures
        self._entries: dict[str, tuple[S, PluginRecord]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[S]:
        return (spec for spec, _ in self._entries.values())

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> S:
        """Look a spec up.

        Raises:
            UsageError: nobody registered the name; says the nearest one, all known ones, and which plugins failed.
        """
        if name not in self._entries:
            raise unknown_name(_KIND_NAMES.get(self.kind, self.kind), name, self._entries, self._failures())
        return self._entries[name][0]

    def owner(self, name: str) -> PluginRecord:
        """The plugin that registered the name."""
        return self._entries[name][1]

    def options(self, name: str, values: Mapping[str, Any] | None = None) -> Any:
        """Make a spec's options object from what the user gave.

        Raises:
            UsageError: no such name, or options it does not take.
        """
        spec = self.get(name)
        assert not isinstance(spec, (ModelSpec, DialectSpec)), f"a {self.kind} has no options"
        return make_options(spec, values or {}, self.kind)

    def build(self, name: str, values: Mapping[str, Any] | None = None, *context: Any) -> B:
        """Build the component of that name.

        Args:
            name: as the user wrote it.
            values: its options, as `make_options` takes them.
            context: what the spec's `build` takes besides its options, such as a labeler's encoder.

        Raises:
            UsageError: no such name, or options it does not take.
            PluginError: the plugin failed, or built something else; names it.
        """
        return self.construct(name, self.options(name, values), *context)

    def construct(self, name: str, options: Any, *context: Any) -> B:
        """As `build`, from an options object."""
        spec, owner = self.get(name), self.owner(name).owner
        assert not isinstance(spec, (ModelSpec, DialectSpec)), f"a {self.kind} is not built"
        build: Callable[..., Any] = spec.build
        try:
            built: B = build(options, *context)
        except DistillError:
            raise
        except Exception as error:
            raise PluginError(f"{owner} cannot build the {self.kind} {name!r}: {one_line(error)}") from error
        wanted = KINDS[self.kind].offers
        if not isinstance(built, wanted):
            names = " or ".join(protocol.__name__ for protocol in wanted)
            what = f"its {self.kind} {name!r} is an object of type {type(built).__name__}"
            raise PluginError(f"{owner}: {what}, which is no {names}")
        return built

    def add(self, spec: S, record: PluginRecord) -> None:
        """Enter a spec of the plugin."""
        self._entries[spec.name] = (spec, record)

    def drop(self, record: PluginRecord) -> None:
        """Take out all specs of the plugin."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry[1] is not record}


_CALLED = {"model": ("path",), "dialect": ("matches", "read")}
"""What is called of the kinds that are not built, and have no options."""


def check_spec(kind: str, spec: Any) -> None:
    """Refuse a spec that would fail later, when somebody names it or lists the plugins."""
    name = spec.name
    if not isinstance(name, str) or not name or any(char.isspace() or not char.isprintable() for char in name):
        raise PluginError(f"{name!r} cannot be the name of a {kind}")
    if kind == "teacher" and ":" in name:
        raise PluginError(f"{name!r} cannot be the name of a teacher: a model follows the colon")
    if not isinstance(spec.summary, str):
        raise PluginError(f"{kind} {name!r}: its summary is not text")
    for attribute in _CALLED.get(kind, ("build",)):
        if not callable(getattr(spec, attribute)):
            raise PluginError(f"{kind} {name!r}: its {attribute} cannot be called")
    if kind in _CALLED or spec.options is dict:
        return
    if not isinstance(spec.options, type) or not dataclasses.is_dataclass(spec.options):
        raise PluginError(f"{kind} {name!r}: its options are not a dataclass")
    typing.get_type_hints(spec.options)  # a type that is imported for type checkers only would fail here
