"""Finding, loading and isolating plugins.

One plugin at a time, each in its own `try`: whatever it does wrong is recorded, shown by `distill plugins`, and
stops only a command that names it. A fresh manager is made for each run: there is no global state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import logging
import os
import signal
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from distill import hookspecs
from distill.errors import PluginError, unknown_name
from distill.files.signals import kept_handlers
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
            raise unknown_name(self.kind, name, self._entries, self._manager.failures())
        return self._entries[name][0]

    def owner(self, name: str) -> PluginRecord:
        """The plugin that registered the name."""
        return self._entries[name][1]

    def add(self, spec: S, record: PluginRecord) -> None:
        """Enter a spec of the plugin."""
        self._entries[spec.name] = (spec, record)

    def drop(self, record: PluginRecord) -> None:
        """Take out all specs of the plugin."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry[1] is not record}


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
        self._warned: set[tuple[str, str]] = set()  # (plugin, observer hook) whose failure has been told
        self.registries: dict[str, Registry] = {kind: Registry(kind, self) for kind in KINDS}

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
        namesake = next((other for other in self.records if other.name == record.name and not other.error), None)
        self.records.append(record)
        if namesake:
            record.error = f"its name is taken by {namesake.owner}"
            return
        began = time.perf_counter()
        loaded = set(sys.modules)
        try:
            with _fenced():
                plugin = importer()
                self.pm.register(plugin, name=record.name)
                self.pm.check_pending()
                self._refuse_wrappers(record)
                specs = self._collect_specs(plugin, record)
        except (Exception, SystemExit) as error:  # a plugin may also call sys.exit() at import
            self._drop(record, error)
        else:
            for kind, spec in specs:
                self.registries[kind].add(spec, record)
                record.registers.setdefault(kind, []).append(spec.name)
            callers = self.pm.get_hookcallers(plugin) or ()
            record.hooks = [caller.name for caller in callers if not caller.name.startswith("register_")]
        record.seconds = time.perf_counter() - began
        record.heavy = sorted(name for name in HEAVY if name in sys.modules and name not in loaded)

    def _drop(self, record: PluginRecord, error: BaseException) -> None:
        """Note why a plugin failed, and take away all it had registered."""
        record.error = one_line(error)
        record.registers, record.hooks = {}, []
        if self.pm.has_plugin(record.name):  # by its name: another plugin may be the very same module
            self.pm.unregister(name=record.name)
        for registry in self.registries.values():
            registry.drop(record)

    def _refuse_wrappers(self, record: PluginRecord) -> None:
        """A wrapper around other plugins' hooks would be called as if it were a hook itself, and do nothing."""
        callers = self.pm.get_hookcallers(self.pm.get_plugin(record.name)) or ()
        for impl in (impl for caller in callers for impl in caller.get_hookimpls()):
            if impl.plugin_name == record.name and (impl.wrapper or impl.hookwrapper):
                raise PluginError(f"its {impl.function.__name__} is a wrapper, which distill's hooks do not have")

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
                    _check_spec(kind, spec)
                    if spec.name in self.registries[kind]:
                        owner = self.registries[kind].owner(spec.name).owner
                        raise PluginError(f"{kind} {spec.name!r} is already registered by {owner}")
                    if any(kind == other and spec.name == taken.name for other, taken in found):
                        raise PluginError(f"{kind} {spec.name!r} is registered twice by this plugin")
                    found.append((kind, spec))
        return found

    def add_commands(self, cli: click.Group) -> None:
        """Let the plugins add commands to the command line; a failing plugin is recorded and dropped."""
        import click

        owners: dict[str, PluginRecord] = {}
        for record in [record for record in self.records if not record.error]:
            for function in self._impls("register_commands", record):
                staging = click.Group("staging")
                try:
                    with _fenced():
                        function(staging)
                    for name in staging.commands:
                        if name in cli.commands:
                            owner = owners[name].owner if name in owners else "distill itself"
                            raise PluginError(f"command {name!r} is already registered by {owner}")
                except (Exception, SystemExit) as error:
                    self._drop(record, error)
                    break
                for name, command in staging.commands.items():
                    cli.add_command(command, name)
                    owners[name] = record
                if staging.commands:
                    record.registers["command"] = sorted(staging.commands)

    def notify(self, hook: str, **values: Any) -> None:
        """Call an observer hook of every plugin; a failure is logged with the plugin's name, as a warning once."""
        for impl in reversed(getattr(self.pm.hook, hook).get_hookimpls()):  # as pluggy does: the latest first
            try:
                with _fenced():
                    impl.function(*[values[name] for name in impl.argnames])
            except (Exception, SystemExit) as error:
                level = logging.DEBUG if (impl.plugin_name, hook) in self._warned else logging.WARNING
                self._warned.add((impl.plugin_name, hook))
                log.log(level, "plugin %r failed in %s: %s", impl.plugin_name, hook, one_line(error))


@contextlib.contextmanager
def _fenced() -> Iterator[None]:
    """Run a plugin's code: standard output belongs to the command's data, and Ctrl-C to the user."""
    with kept_handlers((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)), contextlib.redirect_stdout(sys.stderr):
        yield


def _check_spec(kind: str, spec: Any) -> None:
    """Refuse a spec that would fail later, when somebody names it or lists the plugins."""
    name = spec.name
    if not isinstance(name, str) or not name or any(char.isspace() or not char.isprintable() for char in name):
        raise PluginError(f"{name!r} cannot be the name of a {kind}")
    if kind == "teacher" and ":" in name:
        raise PluginError(f"{name!r} cannot be the name of a teacher: a model follows the colon")
    if not isinstance(spec.summary, str):
        raise PluginError(f"{kind} {name!r}: its summary is not text")
    if not callable(spec.path if kind == "model" else spec.build):
        raise PluginError(f"{kind} {name!r}: its {'path' if kind == 'model' else 'build'} cannot be called")
    if kind == "model" or spec.options is dict:
        return
    if not isinstance(spec.options, type) or not dataclasses.is_dataclass(spec.options):
        raise PluginError(f"{kind} {name!r}: its options are not a dataclass")
    typing.get_type_hints(spec.options)  # a type that is imported for type checkers only would fail here


def one_line(error: BaseException) -> str:
    """Put an error into one printable line: its type and the text of its first line."""
    text = str(error).strip().splitlines()
    text = "".join(char if char.isprintable() else "?" for char in text[0]) if text else ""
    kind = type(error).__name__
    return text if isinstance(error, PluginError) and text else f"{kind}: {text}" if text else kind


def make_plugin_manager(files: Sequence[str | Path] = (), environ: Mapping[str, str] | None = None) -> PluginManager:
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
    for entry, distribution, version in _entry_points(environ):
        manager.load(PluginRecord(entry.name, "entry point", distribution, version), entry.load)
    for file in files:
        manager.load(PluginRecord(str(file), "file"), lambda file=file: _import_file(Path(file)))
    return manager


def _names(environ: Mapping[str, str], key: str) -> set[str] | None:
    if key not in environ:
        return None
    return {name.strip() for name in environ[key].split(",") if name.strip()}


def _entry_points(
    environ: Mapping[str, str],
) -> list[tuple[importlib.metadata.EntryPoint, str | None, str | None]]:
    """The entry points to load, by name, each with its distribution's name and version."""
    only, without = _names(environ, "DISTILL_PLUGINS"), _names(environ, "DISTILL_DISABLE") or set()
    found = {}
    # Not `entry_points(group=…)`: it raises for all when the metadata of one package is damaged.
    for distribution in importlib.metadata.distributions():
        try:
            entries = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            log.debug("entry points that cannot be read: %s", one_line(error))
            continue
        for entry in entries:
            name, version = _identity(distribution)
            found.setdefault((entry.name, name or ""), (entry, name, version))  # the first on sys.path counts
    for name in sorted(((only or set()) | without) - {name for name, _ in found}):
        log.warning("DISTILL_PLUGINS or DISTILL_DISABLE names the plugin %r, which is not installed", name)
    return [found[key] for key in sorted(found) if (only is None or key[0] in only) and key[0] not in without]


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str | None, str | None]:
    """A distribution's name and version; None where its METADATA is damaged or gone."""
    try:
        return distribution.metadata["Name"], distribution.version
    except Exception:
        return None, None


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
