"""Loading one plugin as the command line would, watching hooks, and the suites for whatever a plugin registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import hookspecs
from distill.collection import make_teacher
from distill.errors import PluginError, UsageError, unknown_name
from distill.plugins import PluginManager, PluginRecord, make_plugin_manager
from distill.testing.checks import Check, Outcome, broken, run_checks
from distill.testing.dialects import dialect_checks
from distill.testing.exporters import exporter_checks
from distill.testing.formatters import formatter_checks
from distill.testing.labelers import labeler_checks
from distill.testing.losses import loss_checks
from distill.testing.teachers import teacher_checks
from distill.testing.trainers import trainer_checks
from distill.types import CollectRun, TrainResult, Transcript


def load_plugin(plugin: Any, name: str = "plugin") -> PluginManager:
    """Load a plugin beside the built-in ones, and no other.

    Args:
        plugin: a module, or any object with hook implementations.
        name: what to call it.

    Raises:
        AssertionError: the plugin cannot be loaded; says why.
    """
    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    record = PluginRecord(name, "file")
    manager.load(record, lambda: plugin)
    assert record.error is None, f"the plugin is not loaded: {record.error}"
    return manager


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an observer hook: its name, and its arguments by name."""

    hook: str
    arguments: Mapping[str, Any]


class HookRecorder:
    """A plugin that writes down every call of every observer hook.

    Args:
        manager: where to load it; also possible later, with `manager.load`.

    Attributes:
        calls: what was called, in order.
    """

    def __init__(self, manager: PluginManager | None = None):
        self.calls: list[Call] = []
        if manager is not None:
            manager.load(PluginRecord("hook recorder", "file"), lambda: self)

    @hookspecs.hookimpl
    def transcript_collected(self, transcript: Transcript, run: CollectRun) -> None:
        """Write the call down."""
        self.calls.append(Call("transcript_collected", {"transcript": transcript, "run": run}))

    @hookspecs.hookimpl
    def training_finished(self, run: Path, result: TrainResult) -> None:
        """Write the call down."""
        self.calls.append(Call("training_finished", {"run": run, "result": result}))

    def of(self, hook: str) -> list[Mapping[str, Any]]:
        """The arguments of each call of a hook."""
        return [call.arguments for call in self.calls if call.hook == hook]


@dataclass(frozen=True, slots=True)
class Checked:
    """One name a plugin registers (or, with the kind `plugin`, the plugin itself), and what its checks found.

    Attributes:
        kind: `plugin`, `teacher`, `formatter`, `labeler`, `trainer`, `loss` or `exporter`.
        name: the name.
        owner: the plugin, as errors name it.
        outcomes: check by check; runs them as it is read.
    """

    kind: str
    name: str
    owner: str
    outcomes: Iterator[Outcome]


def check_named(
    manager: PluginManager,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    ask: str | None = None,
) -> Iterator[Checked]:
    """Run the conformance suites on what the user named.

    Args:
        manager: the plugins.
        name: of a teacher (`NAME:MODEL`), formatter, labeler, trainer, loss or exporter; or of a plugin or its package,
            for all of it.
        options: for the name's `build`.
        kind: what it is, where several kinds have the name.
        ask: what to ask a teacher, for 16 tokens at most; it may cost money. None: nothing.

    Raises:
        UsageError: there is nothing of that name, or the options do not fit.
    """
    wanted = [kind] if kind else list(_SUITES)
    kinds = [one for one in wanted if name.partition(":")[0] in manager.registries[one]]
    records = [record for record in manager.records if name in (record.name, record.distribution) and not kind]
    if not kinds and not records:
        known = {spec for one in wanted for spec in manager.registries[one].names()}
        known |= set() if kind else {record.name for record in manager.records}
        raise unknown_name(kind or "plugin, or name of one,", name, known, manager.failures())
    if options and len(kinds) != 1:
        what = " and ".join(f"a {one}" for one in kinds) or "a whole plugin"
        raise UsageError(f"{name!r} is {what}: whose options are these?", "say --kind, or the name of one of its parts")
    for one in kinds:
        yield _checked(manager, one, name, options or {}, ask)
    for record in records if not kinds else []:
        yield Checked("plugin", record.name, record.owner, run_checks(_plugin_checks(record)))
        for one, names in record.registers.items():
            for part in names if one in _SUITES else []:
                yield _checked(manager, one, part, {}, ask)


def _checked(manager: PluginManager, kind: str, name: str, options: Mapping[str, Any], ask: str | None) -> Checked:
    owner = manager.registries[kind].owner(name.partition(":")[0]).owner
    try:
        checks = _SUITES[kind](manager, name, options, ask)
    except PluginError as error:
        reason = error.message
        checks = [Check("it can be built", lambda: broken(reason))]
    return Checked(kind, name, owner, run_checks(checks))


def _plugin_checks(record: PluginRecord) -> list[Check]:
    def loaded() -> None:
        assert record.error is None, record.error

    def light() -> None:
        assert not record.heavy, (
            f"it imports {', '.join(record.heavy)}, and so slows every command; import them in build"
        )

    return [Check("it is loaded", loaded), Check("it imports nothing heavy when the tool starts", light)]


def _formatter(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    return formatter_checks(manager.formatters.build(name, options))


def _labeler(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    made = manager.labelers.options(name, options)
    return labeler_checks(lambda encoder: manager.labelers.construct(name, made, encoder))


def _loss(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    made, needs = manager.losses.options(name, options), manager.losses.get(name).soft_labels
    return loss_checks(lambda: manager.losses.construct(name, made), soft_labels=needs is not None)


def _trainer(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    made = manager.trainers.options(name, options)
    return trainer_checks(lambda: manager.trainers.construct(name, made))


def _exporter(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    made = manager.exporters.options(name, options)
    return exporter_checks(lambda: manager.exporters.construct(name, made))


def _dialect(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    return dialect_checks(manager.dialects.get(name))


def _teacher(manager: PluginManager, name: str, options: Mapping[str, Any], ask: str | None) -> Sequence[Check]:
    return teacher_checks(make_teacher(manager, name, options).build(), (ask,) if ask else ())


_SUITES: Mapping[str, Callable[..., Sequence[Check]]] = {
    "teacher": _teacher,
    "formatter": _formatter,
    "labeler": _labeler,
    "trainer": _trainer,
    "loss": _loss,
    "exporter": _exporter,
    "dialect": _dialect,
}
