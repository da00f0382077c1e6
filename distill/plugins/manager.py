"""Loading plugins one at a time, and what the loaded ones offer."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from distill import hookspecs
from distill.errors import PluginError, Terminated, one_line
from distill.plugins.isolation import fenced, own_process_state
from distill.plugins.registry import KINDS, PluginRecord, Registry, check_spec
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

if TYPE_CHECKING:
    import click

GROUP = "distill"
"""The entry-point group of plugin packages, and pluggy's project name."""

HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy")

log = logging.getLogger("distill")


class PluginManager:
    """The loaded plugins and what they offer. Make one with `make_plugin_manager`.

    Attributes:
        records: every plugin that was found, in load order, the failed ones included.
        teachers, formatters, labelers, trainers, losses, exporters, models, dialects: registries of specs.
    """

    def __init__(self) -> None:
        self.pm = pluggy.PluginManager(GROUP)
        self.pm.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        self._warned: set[tuple[str, str]] = set()  # (plugin, observer hook) whose failure has been told
        self.registries: dict[str, Registry[Any, Any]] = {kind: Registry(kind, self.failures) for kind in KINDS}

    @property
    def teachers(self) -> Registry[TeacherSpec, Teacher | BatchTeacher]:
        return self.registries["teacher"]

    @property
    def formatters(self) -> Registry[FormatterSpec, Formatter]:
        return self.registries["formatter"]

    @property
    def labelers(self) -> Registry[LabelerSpec, Labeler]:
        return self.registries["labeler"]

    @property
    def trainers(self) -> Registry[TrainerSpec, Trainer]:
        return self.registries["trainer"]

    @property
    def losses(self) -> Registry[LossSpec, Loss]:
        return self.registries["loss"]

    @property
    def exporters(self) -> Registry[ExporterSpec, Exporter]:
        return self.registries["exporter"]

    @property
    def dialects(self) -> Registry[DialectSpec, None]:
        return self.registries["dialect"]

    @property
    def models(self) -> Registry[ModelSpec, None]:
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
            with fenced(), own_process_state():
                plugin = importer()
                self.pm.register(plugin, name=record.name)
                self.pm.check_pending()
                self._refuse_wrappers(record)
                specs = self._collect_specs(plugin, record)
        except (KeyboardInterrupt, Terminated):
            raise
        except BaseException as error:  # sys.exit() at import, pytest's Skipped, a panic of an extension module
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

    def _impls(self, hook: str, record: PluginRecord) -> list[Callable[..., Any]]:
        return [
            impl.function for impl in getattr(self.pm.hook, hook).get_hookimpls() if impl.plugin_name == record.name
        ]

    def _collect_specs(self, plugin: Any, record: PluginRecord) -> list[tuple[str, Spec]]:
        """Call the plugin's registration hooks and check what they return."""
        found: list[tuple[str, Spec]] = []
        for kind, one in KINDS.items():
            wanted, hook = one.spec, one.hook(kind)
            for function in self._impls(hook, record):
                returned = function()
                if returned is None or isinstance(returned, (str, bytes)) or not isinstance(returned, Iterable):
                    raise PluginError(f"{hook} returned {type(returned).__name__}, not {wanted.__name__}s")
                for spec in returned:
                    if not isinstance(spec, wanted):
                        raise PluginError(f"{hook} returned a {type(spec).__name__}, not a {wanted.__name__}")
                    check_spec(kind, spec)
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
                    with fenced(), own_process_state():
                        function(staging)
                    for name in staging.commands:
                        if name in cli.commands:
                            owner = owners[name].owner if name in owners else "distill itself"
                            raise PluginError(f"command {name!r} is already registered by {owner}")
                except (KeyboardInterrupt, Terminated):
                    raise
                except BaseException as error:
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
                with fenced():
                    impl.function(*[values[name] for name in impl.argnames])
            except (Exception, SystemExit) as error:
                level = logging.DEBUG if (impl.plugin_name, hook) in self._warned else logging.WARNING
                self._warned.add((impl.plugin_name, hook))
                log.log(level, "plugin %r failed in %s: %s", impl.plugin_name, hook, one_line(error))
