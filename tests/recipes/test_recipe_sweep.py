"""Lists in a recipe: a student per value, each in its own folder, all in one comparison."""

from __future__ import annotations

import json
import re

import pytest
from recipe_rows import write_rows

from distill.errors import UsageError
from distill.recipes.schema import read_recipe
from distill.recipes.state import State, Wanted
from distill.recipes.sweep import variants
from distill.recipes.yaml_file import load_yaml

RATES = {"learning-rate": [1e-3, 1e-2]}


def load(tmp_path, train: str) -> list:
    path = tmp_path / "r.yaml"
    path.write_text(f"prompts: p.jsonl\nout: o\ncollect: {{teacher: babel}}\n{train}\n")
    return list(variants(load_yaml(path)))


def test_each_combination_is_a_student_and_lists_by_nature_stay_lists(tmp_path):
    train = """train:
  student: org/model
  learning-rate: [1e-4, 3e-4]
  lora: true
  lora-targets: [q_proj, v_proj]
  labeler: [masked]
  packing: [true, false]
  trainer-options: {betas: [0.9, 0.95]}"""
    found = load(tmp_path, train)
    assert [one.label for one in found] == [
        f"learning-rate={rate} packing={packing}" for rate in ("0.0001", "0.0003") for packing in ("true", "false")
    ]
    assert found[0].stem == "run-learning-rate-0.0001-packing-true"
    section = read_recipe(found[3].loaded).train.options()
    assert section["learning_rate"] == 3e-4 and section["packing"] is False and section["labeler"] == "masked"
    assert section["lora_targets"] == ["q_proj", "v_proj"] and section["trainer_options"] == {"betas": "[0.9, 0.95]"}


@pytest.mark.parametrize("train", ["", "train:", "train: {epochs: 1}", "train: {epochs: [1]}"])
def test_without_lists_there_is_one_student_with_the_usual_folder(tmp_path, train):
    (only,) = load(tmp_path, train)
    assert only.label is None and only.stem == "run"


def test_names_of_folders_hold_nothing_odd(tmp_path):
    found = load(tmp_path, "train: {student: [./models/tiny, org/big model, ../..], hold-out: [null, 10%]}")
    assert [one.stem for one in found[:3]] == [
        "run-student-tiny-hold-out-null",
        "run-student-tiny-hold-out-10",
        "run-student-big-model-hold-out-null",
    ]
    assert all(re.fullmatch(r"[\w.+-]+", one.stem) for one in found)
    assert len(load(tmp_path, f"train: {{student: [{'x' * 300}, {'y' * 300}]}}")[1].stem) == 100


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("train: {epochs: [1, two]}", r"r.yaml:4:21: train.epochs takes a number"),
        ("train: {epochs: [1, 2, 1]}", r"r.yaml:4:24: epochs has 1 twice"),
        ("train: {epochs: []}", r"r.yaml:4:9: train.epochs takes a number"),
        ("train: {epochs: [1, [2]]}", r"r.yaml:4:21: train.epochs takes a number"),
    ],
)
def test_a_wrong_value_in_a_list_is_named_with_its_place(tmp_path, train, said):
    with pytest.raises(UsageError, match=said):
        for one in load(tmp_path, train):
            read_recipe(one.loaded)


def test_a_sweep_is_trained_compared_and_found_again(folder, recipe, run, asked, monkeypatch):
    sections = {"train": {"hold-out": 3, **RATES}, "compare": {"max-tokens": 4}}
    code, out, err = run(recipe(**sections), "--dry-run")
    assert code == 0, err
    assert "2 students" in out and "train learning-rate=0.01 would run" in out and not (folder / "out").exists()

    with monkeypatch.context() as patched:
        _interrupt_second_training(patched)
        code, _, err = run(recipe(**sections))
    assert code == 130 and "stopped in train learning-rate=0.01; the same command goes on" in err

    code, out, err = run(recipe(**sections), "--json")
    assert code == 0, err
    steps = json.loads(out)["steps"]
    assert [one["state"] for one in steps if one["step"] == "train"] == ["unchanged", "done"]
    assert "was stopped, goes on" in err
    made = [folder / "out" / f"run-learning-rate-{rate}" for rate in ("0.001", "0.01")]
    for path, rate in zip(made, (1e-3, 1e-2), strict=True):
        assert json.loads((path / "run.json").read_text())["settings"]["learning-rate"]["value"] == rate
        assert json.loads((path / "resolved.json").read_text())["settings"]["train"]["learning-rate"] == rate
    comparison = json.loads((folder / "out" / "comparison.json").read_text())
    assert [one["run"] for one in comparison["comparisons"]] == [str(path) for path in made]
    assert comparison["settings"]["learning-rate"] == [1e-3, 1e-2]
    assert "learning-rate" in (folder / "out" / "comparison.html").read_text()

    code, out, err = run(recipe(**sections))
    assert code == 0 and err.count("nothing has changed") == 6
    assert all(str(path) in out for path in made) and "Perplexity" in out and "comparison.html" in out
    code, out, err = run(recipe(train={"hold-out": 3, "learning-rate": 1e-2}), "--json")
    assert json.loads(out)["run"] == str(made[1]), "one value finds the student of the sweep"
    assert len(asked()) == 8


def _interrupt_second_training(patched) -> None:
    import distill.training

    train, calls = distill.training.train, []

    def stop(settings, *args, **words):
        calls.append(settings)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(settings, *args, **words)

    patched.setattr(distill.training, "train", stop)


@pytest.mark.parametrize("key", ["seed", "hold-out"])
def test_students_that_hold_out_others_are_not_compared_on_them(folder, recipe, run, key):
    values = {"hold-out": 2, key: [1, 2]}
    code, _, err = run(recipe(train=values, compare={}), "--dry-run")
    assert code == 2 and f"{key} decides what is held out" in err and "compare: {data: FILE}" in err
    write_rows(folder / "other.jsonl", [{"prompt": "other", "completion": "yes"}])
    assert run(recipe(train=values, compare={"data": "other.jsonl"}), "--dry-run")[0] == 0


def test_a_setting_that_distill_did_not_have_is_no_difference_at_its_default(tmp_path):
    def wanted(**inputs) -> Wanted:
        return Wanted("train", inputs, "run", {"packing": False, "lora": False, "lora-rank": 16})

    path = tmp_path / "r.yaml"
    state = State(tmp_path, path)
    former = {"learning_rate": 0.1, "lora": None, "per_device_train_batch_size": 8}
    state.finish(state.begin(Wanted("train", former, "run")), {})
    now = {"learning-rate": 0.1, "lora": False, "batch-size": 8}
    state = State(tmp_path, path)
    assert state.why(wanted(**now), lambda record: True) is None
    assert state.why(wanted(**now, packing=False), lambda record: True) is None
    assert state.why(wanted(**now, packing=True), lambda record: True) == "packing is true, was false"
    assert state.begin(wanted(**now, packing=True)).made == "run-2"
