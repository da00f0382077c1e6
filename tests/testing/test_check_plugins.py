"""Loading one plugin, recording hooks, and `distill plugins check`."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

import distill
from distill import CollectRun, FormatterSpec, Message, TeacherSpec, TrainResult, Transcript, hookspecs
from distill.cli.main import main
from distill.collection import CollectSettings, collect
from distill.testing import HookRecorder, ScriptedTeacher, check_named, load_plugin

RESULT = TrainResult(1, 0.5)


def module(**functions):
    """A plugin: an object whose attributes are hook implementations."""
    return types.SimpleNamespace(**{name: distill.hookimpl(function) for name, function in functions.items()})


def test_load_plugin_loads_it_beside_the_built_in_ones_alone():
    spec = FormatterSpec("mine", "for a test", build=lambda options: None)
    manager = load_plugin(module(register_formatters=lambda: [spec]), "mine")
    assert manager.formatters.get("mine") is spec
    assert {record.origin for record in manager.records} == {"builtin", "file"}
    with pytest.raises(AssertionError, match="not loaded: ZeroDivisionError"):
        load_plugin(module(register_formatters=lambda: 1 / 0))


def test_the_recorder_knows_every_observer_hook():
    recorder = HookRecorder()
    observers = {name for name, value in vars(hookspecs).items() if hasattr(value, "distill_spec")}
    observers = {name for name in observers if not name.startswith("register_")}
    assert observers == {"transcript_collected", "training_finished"}
    assert all(callable(getattr(recorder, name)) for name in observers)


def test_the_recorder_keeps_what_was_said_in_order():
    manager = load_plugin(module())
    recorder = HookRecorder(manager)
    transcript, run = Transcript("1", [Message("user", "a")]), CollectRun(Path("out"), "babel")
    manager.notify("transcript_collected", transcript=transcript, run=run)
    manager.notify("training_finished", run=Path("run"), result=RESULT)
    assert [call.hook for call in recorder.calls] == ["transcript_collected", "training_finished"]
    assert recorder.of("transcript_collected") == [{"transcript": transcript, "run": run}]
    assert recorder.of("training_finished") == [{"run": Path("run"), "result": RESULT}]


def test_transcript_collected_is_called_for_each_transcript_once_it_is_on_disk(tmp_path):
    out, on_disk = tmp_path / "out.jsonl", []
    scripted = ScriptedTeacher(["one", distill.TeacherError("no"), "three"])
    plugin = module(
        register_teachers=lambda: [TeacherSpec("scripted", "", build=lambda options, model: scripted)],
        transcript_collected=lambda transcript: on_disk.append(transcript.id in out.read_text()),
    )
    manager = load_plugin(plugin)
    recorder = HookRecorder(manager)
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    summary = collect(tmp_path / "prompts.txt", out, CollectSettings("scripted", concurrency=1), manager)
    assert (summary.rows, summary.failed, scripted.closed) == (2, 1, True)
    told = [call["transcript"].id for call in recorder.of("transcript_collected")]
    assert told == [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert on_disk == [True, True]
    assert {call["run"] for call in recorder.of("transcript_collected")} == {CollectRun(out, "scripted")}


def test_training_finished_is_called_once_when_the_folder_is_whole(bloom, article, tmp_path, manager):
    from distill.training import TrainSettings, train

    whole = []
    manager = load_plugin(module(training_finished=lambda run: whole.append((run / "model/config.json").is_file())))
    recorder = HookRecorder(manager)
    settings = TrainSettings(data=(article,), out=tmp_path / "run", student=str(bloom), epochs=1)
    report = train(settings, manager)
    (call,) = recorder.of("training_finished")
    assert (call["run"], call["result"].steps, whole) == (tmp_path / "run", report.steps, [True])
    train(TrainSettings(data=(article,), out=tmp_path / "no", student=str(bloom)), manager, dry_run=True)
    assert len(recorder.calls) == 1


def test_check_named_takes_a_name_or_a_whole_plugin():
    spec = FormatterSpec("mine", "for a test", build=lambda options: object())
    manager = load_plugin(module(register_formatters=lambda: [spec]), "whole")
    (one,) = check_named(manager, "mine")
    assert (one.kind, one.name, one.owner) == ("formatter", "mine", "plugin 'whole'")
    reason = "plugin 'whole': its formatter 'mine' is an object of type object, which is no Formatter"
    assert next(iter(one.outcomes)).reason == reason
    assert [(one.kind, one.name) for one in check_named(manager, "whole")] == [
        ("plugin", "whole"),
        ("formatter", "mine"),
    ]
    assert [one.kind for one in check_named(manager, "trl")] == ["labeler", "trainer"]
    with pytest.raises(distill.UsageError, match="unknown plugin, or name of one, 'mien'") as caught:
        list(check_named(manager, "mien"))
    assert "did you mean 'mine'?" in caught.value.hint


BROKEN = """
import distill

class Broken:
    def label(self, encoded):
        return encoded.input_ids[:-1]

@distill.hookimpl
def register_labelers():
    return [distill.LabelerSpec("broken", "", build=lambda options, encoder: Broken())]

@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("silent", "", build=lambda options, model: distill.testing.ScriptedTeacher([""]))]

import distill.testing
"""


@pytest.fixture
def broken(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    return str(file)


def test_the_command_says_line_by_line_what_is_kept_and_what_is_broken(broken, capsys):
    assert main(["--plugin", broken, "plugins", "check", "broken"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"labeler broken  (plugin {broken!r})"
    assert lines[1] == "  ✗ there is one label per token: the token's own id, or -100"
    assert lines[2].startswith(
        "      conversation 'one turn', format 'chat-template', tokenizer 'bloom': label() gave "
    )
    assert ", 2 failed" in lines[-1]
    assert main(["--plugin", broken, "plugins", "check", "masked"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 passed"


def test_the_command_for_programs(broken, capsys):
    assert main(["--plugin", broken, "plugins", "check", "silent", "--ask", "Hello?", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["status"] for row in rows} == {"passed", "failed"}
    assert {(row["kind"], row["name"], row["plugin"]) for row in rows} == {("teacher", "silent", f"plugin {broken!r}")}
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert failed["reason"].startswith("'Hello?': the answer is empty")


def test_a_teacher_is_asked_nothing_unless_told_to(broken, capsys):
    assert main(["--plugin", broken, "plugins", "check", "silent"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 passed"
    assert err == "teacher silent was asked nothing; --ask 'Say hello.' sends it one request\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["check", "nothing"], 2, "unknown plugin, or name of one, 'nothing'"),
        (["check", "special-tokens", "-F", "respnse=x"], 2, "unknown option of formatter 'special-tokens': 'respnse'"),
        (["check", "labelers", "-L", "a=b"], 2, "'labelers' is a whole plugin: whose options are these?"),
        (["check", "trl", "-T", "warmup_steps=3"], 2, "'trl' is a labeler and a trainer: whose options are these?"),
        (["check", "hf", "-T", "warmup_stepz=3"], 2, "unknown option of trainer 'hf': 'warmup_stepz'"),
        (["check", "masked", "--kind", "trainer"], 2, "unknown trainer 'masked'"),
        (["check", "openai"], 2, "teacher 'openai' needs a model"),
        (["--json", "check", "masked"], 2, "options of `plugins check` go after its name"),
    ],
)
def test_mistakes_in_the_command(words, code, says, capsys):
    assert main(["plugins", *words]) == code
    assert says in capsys.readouterr().err


def test_one_kind_of_a_name_that_two_have(capsys):
    assert main(["plugins", "check", "trl", "--kind", "labeler", "-L", "end_of_turn=false"]) == 0
    out = capsys.readouterr().out
    assert "labeler trl" in out and "trainer trl" not in out
    assert "  ! the end-of-turn marker of a trained answer is trained\n" in out


def test_a_plugin_that_cannot_be_built(tmp_path, capsys):
    file = tmp_path / "broken.py"
    file.write_text(
        "import distill\n"
        "@distill.hookimpl\n"
        "def register_formatters():\n"
        "    return [distill.FormatterSpec('odd', '', build=lambda options: 1 / 0)]\n"
    )
    assert main(["--plugin", str(file), "plugins", "check", "odd"]) == 1
    out = capsys.readouterr().out
    assert "✗ it can be built\n" in out
    assert "cannot build the formatter 'odd': ZeroDivisionError: division by zero" in " ".join(out.split())


def test_a_plugin_that_is_not_loaded_is_told_why(tmp_path, capsys):
    file = tmp_path / "gone.py"
    file.write_text("import gone_for_good")
    assert main(["--plugin", str(file), "plugins", "check", str(file)]) == 1
    assert "ModuleNotFoundError: No module named 'gone_for_good'" in capsys.readouterr().out
