"""Loading order, registries, ownership and observers, in one process."""

from __future__ import annotations

import logging
import os
import sys
import types
from pathlib import Path

import click
import pytest

import distill
from distill import FormatterSpec, ModelSpec, PluginError, TeacherSpec, TrainResult, UsageError, make_plugin_manager
from distill.cli.main import build_cli
from distill.errors import Terminated, one_line
from distill.plugins import BUILTIN, PluginManager, PluginRecord

RESULT = TrainResult(steps=1, loss=0.5)


def module(**functions):
    """A plugin: an object whose attributes are hook implementations."""
    plugin = types.SimpleNamespace()
    for name, function in functions.items():
        setattr(plugin, name, distill.hookimpl(function))
    return plugin


def formatter(name, **kwargs):
    return FormatterSpec(name, "for a test", build=lambda options: None, **kwargs)


def load(manager, name, plugin, **kwargs):
    record = PluginRecord(name, "file", **kwargs)
    manager.load(record, lambda: plugin)
    return record


@pytest.fixture
def manager():
    return PluginManager()


def test_built_in_plugins_come_first_and_are_plugins_like_others():
    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    assert [record.name for record in manager.records] == [name.rpartition(".")[2] for name in BUILTIN]
    assert all(record.origin == "builtin" and record.error is None for record in manager.records)


def test_managers_share_nothing(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(
        "import distill\n"
        "@distill.hookimpl\n"
        "def register_formatters():\n"
        "    return [distill.FormatterSpec('mine', '', build=print)]\n"
    )
    environ = {"DISTILL_PLUGINS": ""}
    assert "mine" in make_plugin_manager([file], environ).formatters
    assert "mine" not in make_plugin_manager(environ=environ).formatters
    assert "mine" in make_plugin_manager([file], environ).formatters


def test_registries(manager):
    plugin = module(
        register_formatters=lambda: iter([formatter("b"), formatter("a")]),
        register_models=lambda: [ModelSpec("a", "for a test", path=Path)],
    )
    record = load(manager, "mine", plugin, distribution="distill-mine", version="0.3")
    assert record.registers == {"formatter": ["b", "a"], "model": ["a"]}
    assert manager.formatters.names() == ["a", "b"]
    assert [spec.name for spec in manager.formatters] == ["b", "a"]
    assert "a" in manager.formatters and "a" in manager.models and "a" not in manager.labelers
    assert manager.formatters.get("a").summary == "for a test"
    assert manager.formatters.owner("a").owner == "plugin 'mine' of distill-mine 0.3"
    assert manager.failures() == ""


def test_unknown_name_shows_the_nearest_all_known_and_what_failed(manager):
    load(manager, "mine", module(register_formatters=lambda: [formatter("chatml"), formatter("plain")]))
    with pytest.raises(UsageError, match="unknown formatter 'chatlm'") as caught:
        manager.formatters.get("chatlm")
    assert caught.value.hint == "did you mean 'chatml'? known: chatml, plain."
    load(manager, "bad", module(register_formatters=lambda: 1 / 0), distribution="distill-bad", version="2")
    with pytest.raises(UsageError) as caught:
        manager.formatters.get("zephyr")
    assert caught.value.hint == (
        "known: chatml, plain. Not loaded: plugin 'bad' of distill-bad 2 (ZeroDivisionError: division by zero)."
    )
    with pytest.raises(UsageError) as caught:
        manager.models.get("smollm2")
    assert caught.value.hint.startswith("none is known. Not loaded: ")


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (formatter(None), "None cannot be the name of a formatter"),
        (formatter(""), "'' cannot be the name of a formatter"),
        (formatter("two words"), "'two words' cannot be the name of a formatter"),
        (formatter("red\x1b[31m"), "cannot be the name of a formatter"),
        (FormatterSpec("x", ["summary"], build=print), "formatter 'x': its summary is not text"),
        (FormatterSpec("x", "", build="print"), "formatter 'x': its build cannot be called"),
        (FormatterSpec("x", "", build=print, options=int), "formatter 'x': its options are not a dataclass"),
        (formatter("x", options=distill.NoOptions()), "formatter 'x': its options are not a dataclass"),
    ],
)
def test_a_spec_that_would_fail_later_is_refused_at_once(manager, spec, error):
    record = load(manager, "mine", module(register_formatters=lambda: [formatter("fine"), spec]))
    assert error in record.error
    assert manager.formatters.names() == []


def test_specs_of_teachers_and_models(manager):
    assert "a model follows the colon" in load(
        manager, "one", module(register_teachers=lambda: [TeacherSpec("a:b", "", build=print)])
    ).error  # fmt: skip
    assert load(manager, "two", module(register_models=lambda: [ModelSpec("m", "", path="/tmp")])).error == (
        "model 'm': its path cannot be called"
    )


def test_options_whose_types_cannot_be_resolved_are_refused(manager, tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import TYPE_CHECKING\n"
        "import distill\n"
        "if TYPE_CHECKING:\n"
        "    from pathlib import Path\n"
        "@dataclass\n"
        "class Options:\n"
        "    file: Path\n"
        "@distill.hookimpl\n"
        "def register_formatters():\n"
        "    return [distill.FormatterSpec('mine', '', build=print, options=Options)]\n"
    )
    record = make_plugin_manager([file], {"DISTILL_PLUGINS": ""}).records[-1]
    assert record.error == "NameError: name 'Path' is not defined"


def test_nothing_of_a_failed_plugin_remains(manager):
    def register_formatters():
        yield formatter("left-over")
        raise ValueError("half-way")

    plugin = module(
        register_teachers=lambda: [TeacherSpec("left-over", "", build=print)],
        register_formatters=register_formatters,
        training_finished=lambda run, result: pytest.fail("an observer of a failed plugin was called"),
    )
    record = load(manager, "mine", plugin)
    assert record.error == "ValueError: half-way"
    assert (record.registers, record.hooks) == ({}, [])
    assert all(registry.names() == [] for registry in manager.registries.values())
    manager.notify("training_finished", run=Path(), result=RESULT)


def test_nothing_remains_of_a_plugin_whose_command_is_refused(manager):
    def register_commands(cli):
        cli.add_command(click.Command("fresh"))
        cli.add_command(click.Command("plugins"))

    plugin = module(
        register_formatters=lambda: [formatter("left-over")],
        register_commands=register_commands,
        training_finished=lambda run, result: pytest.fail("an observer of a failed plugin was called"),
    )
    record = load(manager, "mine", plugin)
    assert record.registers == {"formatter": ["left-over"]}
    cli = build_cli(manager)
    assert record.error == "command 'plugins' is already registered by distill itself"
    assert (record.registers, record.hooks) == ({}, [])
    assert "fresh" not in cli.commands and "left-over" not in manager.formatters
    manager.notify("training_finished", run=Path(), result=RESULT)


def test_refusing_a_plugin_leaves_its_twin_alone(manager):
    seen = []
    plugin = module(
        register_formatters=lambda: [formatter("fine")], training_finished=lambda result: seen.append(result)
    )
    assert load(manager, "first", plugin).error is None
    assert "already registered" in load(manager, "second", plugin).error
    assert load(manager, "first", plugin).error == "its name is taken by plugin 'first'"
    manager.notify("training_finished", run=Path(), result=RESULT)
    assert seen == [RESULT]
    assert manager.formatters.names() == ["fine"]


def test_commands_are_recorded(manager):
    plugin = module(register_commands=lambda cli: cli.add_command(click.Command("greet")))
    record = load(manager, "mine", plugin)
    assert "greet" in build_cli(manager).commands
    assert record.registers == {"command": ["greet"]}


@pytest.mark.parametrize("raised", [ValueError("no disk"), SystemExit(1)])
def test_observers_cannot_break_a_run(manager, caplog, capsys, raised):
    seen = []

    def fails(run, result):
        print("noise")
        raise raised

    def sees_one(result):  # pluggy lets an implementation take fewer arguments
        seen.append(result)

    assert load(manager, "bad", module(training_finished=fails)).hooks == ["training_finished"]
    load(manager, "good", module(training_finished=sees_one))
    with caplog.at_level(logging.WARNING):
        manager.notify("training_finished", run=Path("run"), result=RESULT)
        manager.notify("training_finished", run=Path("run"), result=RESULT)
    assert seen == [RESULT, RESULT]
    # Said once: an observer that fails for each of ten thousand answers must not bury everything else.
    assert caplog.messages == [f"plugin 'bad' failed in training_finished: {one_line(raised)}"]
    assert capsys.readouterr().out == ""


def test_observers_are_called_in_pluggys_order(manager):
    """The latest first, but for `tryfirst` and `trylast`."""
    seen = []

    def observer(name, **when):
        plugin = types.SimpleNamespace()
        plugin.training_finished = distill.hookimpl(**when)(lambda run: seen.append(name))
        return plugin

    for name, when in {"first": {"tryfirst": True}, "last": {"trylast": True}, "one": {}, "two": {}}.items():
        assert load(manager, name, observer(name, **when)).error is None
    manager.notify("training_finished", run=Path(), result=RESULT)
    assert seen == ["first", "two", "one", "last"]


@pytest.mark.parametrize("when", [{"wrapper": True}, {"hookwrapper": True}])
@pytest.mark.parametrize("hook", ["training_finished", "register_formatters"])
def test_wrappers_are_refused(manager, hook, when):
    plugin = types.SimpleNamespace()

    def wraps():
        yield

    wraps.__name__ = hook
    setattr(plugin, hook, distill.hookimpl(**when)(wraps))
    assert load(manager, "mine", plugin).error == f"its {hook} is a wrapper, which distill's hooks do not have"


def test_a_hook_of_a_newer_version_may_be_optional(manager):
    plugin = types.SimpleNamespace()

    @distill.hookimpl(optionalhook=True)
    def register_dreams():
        return []

    plugin.register_dreams = register_dreams
    assert load(manager, "mine", plugin).error is None


def test_signal_handlers_are_given_back(manager):
    import signal

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]

    def register_formatters():
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        return [formatter("fine")]

    assert load(manager, "mine", module(register_formatters=register_formatters)).error is None
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Terminated(15)])
def test_a_signal_during_loading_is_not_the_plugins_failure(manager, signal):
    def importer():
        raise signal

    with pytest.raises(type(signal)):
        manager.load(PluginRecord("mine", "file"), importer)


@pytest.mark.parametrize("error", [SystemExit(3), type("Skipped", (BaseException,), {})("not here\x1b[31m")])
def test_whatever_a_plugin_raises_is_one_line(manager, error):
    def importer():
        raise error

    record = PluginRecord("mine", "file")
    manager.load(record, importer)
    assert record.error in ("SystemExit: 3", "Skipped: not here?[31m")


def test_what_a_plugin_does_to_the_process_is_undone(manager, tmp_path, capfd):
    """Standard output belongs to the command's data, at the level of the file descriptor too."""
    before = os.getcwd()

    def importer():
        print("printed")
        os.write(1, b"written\n")
        os.chdir(tmp_path)
        return module()

    manager.load(PluginRecord("mine", "file"), importer)
    os.write(1, b"data\n")
    out, err = capfd.readouterr()
    assert (out, err.splitlines()) == ("data\n", ["printed", "written"])
    assert os.getcwd() == before


def test_a_component_that_is_none_names_its_plugin(manager):
    specs = [formatter("none"), FormatterSpec("raises", "", build=lambda options: 1 / 0)]
    load(manager, "mine", module(register_formatters=lambda: specs), distribution="distill-mine", version="1")
    with pytest.raises(PluginError) as caught:
        manager.formatters.build("none")
    assert caught.value.message == (
        "plugin 'mine' of distill-mine 1: its formatter 'none' is an object of type NoneType, which is no Formatter"
    )
    with pytest.raises(PluginError) as caught:
        manager.formatters.build("raises")
    assert caught.value.message == (
        "plugin 'mine' of distill-mine 1 cannot build the formatter 'raises': ZeroDivisionError: division by zero"
    )


def test_heavy_imports_are_told(manager, monkeypatch):
    monkeypatch.delitem(sys.modules, "peft", raising=False)

    def importer():
        sys.modules["peft"] = types.ModuleType("peft")
        return module()

    record = PluginRecord("mine", "file")
    manager.load(record, importer)
    sys.modules.pop("peft")  # not by monkeypatch: it would bring the fake back
    assert record.heavy == ["peft"]
    assert record.seconds > 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PluginError("it did wrong"), "it did wrong"),
        (ValueError("\n one\ntwo"), "ValueError: one"),
        (ValueError("\x1b[31mred\u202e"), "ValueError: ?[31mred?"),
        (SystemExit(), "SystemExit"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line
