"""Run folders: what is written is what is read, and damage is told in one line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from run_folders import write_run

from distill.errors import DataError, DistillError, UsageError
from distill.runs import open_run
from distill.runs.folder import RunFolder
from distill.runs.manifest import RunManifest, resolved_settings
from distill.runs.run import SkippedRow, saved_format
from distill.training.settings import LoraSettings
from distill.transcripts.reader import read_transcripts

PAIR = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture(scope="module")
def trained(bloom, manager, tmp_path_factory):
    """A run that trained two rows, held one out and skipped one."""
    from distill.training import TrainSettings, train

    folder = tmp_path_factory.mktemp("trained")
    answers = [{"role": "user", "content": f"question {n}"} for n in range(3)]
    rows = [{"messages": [one, PAIR["messages"][1]], "metadata": {"teacher": "wise"}} for one in answers]
    rows.append({"messages": PAIR["messages"][:1]})
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings(str(bloom), (data,), folder / "run", epochs=1, hold_out="1", seed=4)
    return train(settings, manager, origins={"epochs": "command line"}), open_run(folder / "run"), data


def test_a_run_hands_out_all_that_was_trained(trained, bloom):
    report, run, data = trained
    assert run.is_finished and run.model_dir == run.path / "model" and run.adapter_dir is None
    assert run.report == report and run.report.rows == 4
    assert run.base == str(bloom) and run.teachers == ["wise"] and run.reader().named is None
    assert run.settings["epochs"].value == 1 and run.settings["epochs"].origin == "command line"
    assert run.settings["seed"].value == 4 and run.settings["labeler"].origin == "default"
    assert [one.file for one in run.data] == [str(data)]
    assert run.chat_format.name == "chat-template" and "message" in run.chat_format.template.read_text()
    assert len(list(run.held_out())) == 1
    (skipped,) = run.skipped()
    assert skipped.source == f"{data}:4" and skipped.reason == "no assistant message"
    assert [row["step"] for row in run.metrics() if "loss" in row] == [1] == list(run.to_pandas()["step"].unique())
    assert run.losses()["training"] == [(1, report.loss)] and len(run.losses()["held out"]) == 1
    assert len(list(read_transcripts(data))) == report.trained_rows + report.skipped_rows + report.held_out_rows


def test_what_is_written_is_read(trained, tmp_path):
    _, run, _ = trained
    run.manifest.write(tmp_path / "copy.json")
    assert RunManifest.read(tmp_path / "copy.json") == run.manifest
    assert (tmp_path / "copy.json").read_text() == (run.path / "run.json").read_text()


def test_a_newer_manifest_with_more_in_it_is_read(tmp_path):
    path = write_run(tmp_path / "run") / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "color": "blue"}))
    assert open_run(tmp_path / "run").base == "the base"


def test_settings_are_stored_under_the_names_of_their_options_and_older_runs_are_read(tmp_path):
    folder = write_run(tmp_path / "run")
    path = folder / "run.json"
    manifest = json.loads(path.read_text())
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": [], "quantize": True}
    former = {
        "data_format": None,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "trainer_options": {"a_b": 1},
    }
    settings = manifest["settings"] | {name: {"value": value, "origin": "recipe"} for name, value in former.items()}
    path.write_text(json.dumps({**manifest, "settings": settings | {"lora": {"value": lora, "origin": "recipe"}}}))
    found = open_run(folder).manifest
    shape = {"lora": True, "lora-rank": 4, "lora-alpha": 8, "lora-dropout": 0.0, "lora-targets": [], "qlora": True}
    current = {"from": None, "batch-size": 2, "learning-rate": 0.1, "trainer-options": {"a_b": 1}, **shape}
    assert {name: found.settings[name].value for name in current} == current
    assert all(found.settings[name].origin == "recipe" for name in current)
    found.write(path)
    assert open_run(folder).manifest == found


def test_every_setting_has_its_options_name(trained):
    from distill.recipes.schema import Train
    from distill.training import TrainSettings

    _, run, _ = trained
    names = {field.alias for field in Train.model_fields.values()} | {"data", "out", "allow"}
    behind_lora = {"lora-rank", "lora-alpha", "lora-dropout", "lora-targets", "qlora"}
    assert set(run.settings) == names - behind_lora
    lora = TrainSettings("x", (), run.path, lora=LoraSettings(r=4))
    assert set(resolved_settings(lora, {})) == names and resolved_settings(lora, {})["lora-rank"].value == 4


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda old: "", "is damaged"),
        (lambda old: json.dumps(old)[:-30], "is damaged"),
        (lambda old: "[]", "is damaged"),
        (lambda old: json.dumps({**old, "state": "dancing"}), "damaged: state"),
        (lambda old: json.dumps({**old, "settings": {"seed": 3}}), "damaged: settings.seed"),
        (lambda old: json.dumps({**old, "settings": {}}), "the setting student is missing"),
        (lambda old: json.dumps({**old, "report": {}}), "damaged: report.out"),
        (lambda old: json.dumps({**old, "data": [{"file": "x"}]}), r"damaged: data.0.sha256"),
    ],
)
def test_a_damaged_manifest_is_told_with_the_place(tmp_path, damage, told):
    path = write_run(tmp_path / "run") / "run.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(DataError, match=told) as caught:
        open_run(tmp_path / "run")
    assert "\n" not in caught.value.message and "restore it" in caught.value.hint


def test_what_is_no_run_is_said(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is not a run folder"):
            open_run(path)
    unfinished = open_run(write_run(tmp_path / "run"))
    assert not unfinished.is_finished
    with pytest.raises(UsageError, match="has no finished model"):
        _ = unfinished.model_dir


def test_a_format_without_a_template_is_the_plugins(tmp_path):
    run = write_run(tmp_path / "run", formatter="mine", formatter_options={"sign": "#"})
    assert (saved_format(run).name, saved_format(run).options) == ("mine", {"sign": "#"})
    (run / "model").mkdir()
    (run / "model" / "chat_template.jinja").write_text("{{ messages }}")
    assert (saved_format(run).name, saved_format(run).options) == ("chat-template", {})
    assert saved_format("some/hub-model").name == "chat-template"


def test_damaged_rows_are_told(tmp_path):
    run = open_run(write_run(tmp_path / "run"))
    run.paths.metrics.write_text('{"step": 1}\n{"st\n')
    with pytest.raises(DistillError, match="is damaged"):
        run.metrics()
    run.paths.metrics.write_text('{"step": 1}\n{"st')
    assert run.metrics() == [{"step": 1}], "a kill cut the last line off"
    run.paths.skipped.write_text('{"row": 1}\n')
    with pytest.raises(DataError, match=r"skipped.jsonl:1: not a skipped row"):
        list(run.skipped())


def test_teachers_are_told_as_far_as_the_data_tell(tmp_path):
    data = tmp_path / "a.jsonl"
    rows = [{**PAIR, "metadata": {"teacher": name}} for name in ("one", "two", "one", 5, "")] + [PAIR]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = open_run(write_run(tmp_path / "run", data=(tmp_path / "gone.jsonl", data)))
    assert run.teachers == ["one", "two"]


def test_a_folder_is_written_as_it_is_read(tmp_path):
    manifest = open_run(write_run(tmp_path / "other")).manifest
    folder = RunFolder(tmp_path / "run")
    assert folder.manifest() is None
    skipped = [SkippedRow("1", "a:1", "too long", "overlong")]
    folder.start(manifest, skipped, None)
    with folder.metrics() as log:
        log({"step": 1, "loss": 2.0})
    folder.write_recipe("out: x\n", {"settings": {}})
    run = open_run(tmp_path / "run")
    assert asdict(run.manifest) == asdict(manifest) and list(run.skipped()) == skipped
    assert run.metrics() == [{"step": 1, "loss": 2.0}]
    assert run.paths.recipe.read_text() == "out: x\n" and json.loads(run.paths.resolved_recipe.read_text())
