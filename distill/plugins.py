"""Finding, loading and isolating plugins.

One plugin at a time, each in its own `try`: whatever it does wrong is recorded, shown by `distill plugins`, and
stops only a command that names it. A fresh manager is made for each run: there is no global state.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from distill import hookspecs
from distill.errors import PluginError, unknown_name
from distill.specs import FormatterSpec, LabelerSpec, ModelSpec, Spec, TeacherSpec, TrainerSpec

if TYPE_CHECKING:
    import click

GROUP = "distill"

BUILTIN = (
    "distill.builtin.teachers",
    "distill.builtin.formatters",
    "distill.builtin.labelers",
    "distill.builtin.trainers",
)

KINDS: Mapping[str, type] = {
    "teacher": TeacherSpec,
    "formatter": FormatterSpec,
    "labeler": LabelerSpec,
    "trainer": TrainerSpec,
    "model": ModelSpec,
}

HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy")

log = logging.getLogger("distill")

S = TypeVar("S", bound=Spec)


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


class Registry(Generic[S]):
    """The specs of one kind, by name."""

    def __init__(self, kind: str, manager: PluginManager):
        self.kind = kind
        self._manager = manager
        self._entries: dict[str, tuple[S, PluginRecord]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterable[S]:
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
            raise unknown_name(self.kind, name, self._entries, self._manager.failures())
        return self._entries[name][0]

    def owner(self, name: str) -> PluginRecord:
        """The plugin that registered the name."""
        return self._entries[name][1]

    def add(self, spec: S, record: PluginRecord) -> None:
        self._entries[spec.name] = (spec, record)


class PluginManager:
    """The loaded plugins and what they offer. Make one with `make_plugin_manager`.

    Attributes:
        records: every plugin that was found, in load order, the failed ones included.
        teachers, formatters, labelers, trainers, models: registries of specs.
    """

    def __init__(self):
        self.pm = pluggy.PluginManager(GROUP)
        self.pm.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        self.registries: dict[str, Registry] = {kind: Registry(kind, self) for kind in KINDS}
        self._commands: dict[str, tuple[click.Command, PluginRecord]] = {}

    @property
    def teachers(self) -> Registry[TeacherSpec]:
        return self.registries["teacher"]

    @property
    def formatters(self) -> Registry[FormatterSpec]:
        return self.registries["formatter"]

    @property
    def labelers(self) -> Registry[LabelerSpec]:
        return self.registries["labeler"]

    @property
    def trainers(self) -> Registry[TrainerSpec]:
        return self.registries["trainer"]

    @property
    def models(self) -> Registry[ModelSpec]:
        return self.registries["model"]

    def failed(self) -> list[PluginRecord]:
        """The plugins that are not loaded because of an error."""
        return [record for record in self.records if record.error]

    def failures(self) -> str:
        """One sentence naming the plugins that failed, for hints; empty where none did."""
        failed = self.failed()
        if not failed:
            return ""
        return "Not loaded: " + "; ".join(f"{record.owner} ({record.error})" for record in failed) + "."

    def load(self, record: PluginRecord, importer: Callable[[], Any]) -> None:
        """Import one plugin and take what it registers, wholly or not at all.

        Args:
            record: filled in with what happened.
            importer: gives the plugin object (a module, or any object with hook implementations).
        """
        self.records.append(record)
        began = time.perf_counter()
        loaded = set(sys.modules)
        plugin = None
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the command's data
                plugin = importer()
                self.pm.register(plugin, name=record.name)
                self.pm.check_pending()
                specs = self._collect_specs(plugin, record)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may also call sys.exit() at import
            if plugin is not None and self.pm.is_registered(plugin):
                self.pm.unregister(plugin)
            record.error = one_line(error)
        else:
            for kind, spec in specs:
                self.registries[kind].add(spec, record)
                record.registers.setdefault(kind, []).append(spec.name)
            record.hooks = [
                caller.name for caller in self.pm.get_hookcallers(plugin) or () if not caller.name.startswith("register_")
            ]
        record.seconds = time.perf_counter() - began
        record.heavy = sorted(name for name in HEAVY if name in sys.modules and name not in loaded)

    def _impls(self, hook: str, record: PluginRecord) -> list[Callable]:
        return [
            impl.function for impl in getattr(self.pm.hook, hook).get_hookimpls() if impl.plugin_name == record.name
        ]

    def _collect_specs(self, plugin: Any, record: PluginRecord) -> list[tuple[str, Spec]]:
        """Call the plugin's registration hooks and check what they return."""
        found: list[tuple[str, Spec]] = []
        for kind, wanted in KINDS.items():
            hook = f"register_{kind}s"
            for function in self._impls(hook, record):
                returned = function()
                if returned is None or isinstance(returned, (str, bytes)) or not isinstance(returned, Iterable):
                    raise PluginError(f"{hook} returned {type(returned).__name__}, not {wanted.__name__}s")
                for spec in returned:
                    if not isinstance(spec, wanted):
                        raise PluginError(f"{hook} returned a {type(spec).__name__}, not a {wanted.__name__}")
                    if spec.name in self.registries[kind]:
                        raise PluginError(
                            f"{kind} {spec.name!r} is already registered by {self.registries[kind].owner(spec.name).owner}"
                        )
                    if any(kind == other and spec.name == taken.name for other, taken in found):
                        raise PluginError(f"{kind} {spec.name!r} is registered twice by this plugin")
                    found.append((kind, spec))
        return found

    def add_commands(self, cli: click.Group) -> None:
        """Let the plugins add commands to the command line; a failing plugin's are left out and recorded."""
        import click

        for record in [record for record in self.records if not record.error]:
            for function in self._impls("register_commands", record):
                staging = click.Group("staging")
                try:
                    function(staging)
                    for name in staging.commands:
                        if name in cli.commands:
                            raise PluginError(f"command {name!r} exists already")
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    record.error = one_line(error)
                    continue
                cli.commands.update(staging.commands)
                if staging.commands:
                    record.registers["command"] = sorted(staging.commands)

    def notify(self, hook: str, **values: Any) -> None:
        """Call an observer hook of every plugin; a failure is logged with the plugin's name."""
        for impl in getattr(self.pm.hook, hook).get_hookimpls():
            try:
                impl.function(*[values[name] for name in impl.argnames])
            except Exception as error:
                log.warning("plugin %r failed in %s: %s", impl.plugin_name, hook, one_line(error))


def one_line(error: BaseException) -> str:
    """Put an error into one printable line: its type and the text of its first line."""
    text = str(error).strip().splitlines()
    text = "".join(char if char.isprintable() else "?" for char in text[0]) if text else ""
    kind = type(error).__name__
    return text if isinstance(error, PluginError) and text else f"{kind}: {text}" if text else kind


def make_plugin_manager(
    files: Sequence[str | Path] = (), environ: Mapping[str, str] | None = None
) -> PluginManager:
    """Find and load all plugins: built-ins, then entry points by name, then files.

    Args:
        files: Python files to load as plugins (`--plugin`).
        environ: where `DISTILL_PLUGINS` (only these entry points) and `DISTILL_DISABLE` (not these) are read, each a
            comma-separated list of names; default `os.environ`.

    Returns:
        The manager; plugins that failed are in its `records`, nothing is raised for them.
    """
    environ = os.environ if environ is None else environ
    manager = PluginManager()
    for name in BUILTIN:
        record = PluginRecord(name.rpartition(".")[2], "builtin")
        manager.load(record, lambda name=name: importlib.import_module(name))
        if record.error:
            raise PluginError(f"built-in plugin {name} failed: {record.error}")
    for entry in _entry_points(environ):
        record = PluginRecord(entry.name, "entry point")
        if entry.dist is not None:
            record.distribution, record.version = entry.dist.name, entry.dist.version
        manager.load(record, entry.load)
    for file in files:
        manager.load(PluginRecord(str(file), "file"), lambda file=file: _import_file(Path(file)))
    return manager


def _names(environ: Mapping[str, str], key: str) -> set[str] | None:
    if key not in environ:
        return None
    return {name.strip() for name in environ[key].split(",") if name.strip()}


def _entry_points(environ: Mapping[str, str]) -> list[importlib.metadata.EntryPoint]:
    only, without = _names(environ, "DISTILL_PLUGINS"), _names(environ, "DISTILL_DISABLE") or set()
    found = {(entry.name, entry.value): entry for entry in importlib.metadata.entry_points(group=GROUP)}
    entries = [entry for _, entry in sorted(found.items())]
    return [entry for entry in entries if (only is None or entry.name in only) and entry.name not in without]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"distill_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
