"""A recipe: each step once, nothing overwritten, everything checked before the first request."""

from __future__ import annotations

import json
import shutil

import pytest
from recipe_rows import write_rows

from distill.files.lock import owned

DONE = {"collect": "done", "check": "done", "train": "done"}
UNCHANGED = dict.fromkeys(DONE, "unchanged")


def states(out: str) -> dict[str, str]:
    """What became of each step, from `--json`."""
    return {step["step"]: step["state"] for step in json.loads(out)["steps"]}


def test_each_step_runs_once_and_again_when_something_has_changed(folder, recipe, run, asked):
    code, out, err = run(recipe(), "--json")
    assert code == 0, err
    assert states(out) == DONE
    assert len(asked()) == 8
    made = folder / "out" / "run"
    assert (made / "recipe.yaml").read_text() == (folder / "recipe.yaml").read_text()
    assert json.loads((made / "resolved.json").read_text())["settings"]["train"]["labeler"] == "masked"
    assert json.loads((made / "run.json").read_text())["settings"]["epochs"]["origin"] == "recipe"
    weights = (made / "model" / "model.safetensors").read_bytes()

    with recipe().open("a") as file:
        file.write("# a comment changes nothing\n")
    code, out, err = run(folder / "recipe.yaml", "--json")
    assert states(out) == UNCHANGED
    assert "train: nothing has changed" in err

    code, out, err = run(recipe(train={"labeler": "copy"}), "--json")
    assert states(out) == {"collect": "unchanged", "check": "done", "train": "done"}
    assert "labeler is copy, was masked" in err
    assert (folder / "out" / "run-2" / "model").is_dir()
    assert (made / "model" / "model.safetensors").read_bytes() == weights, "the first run stays as it is"

    code, out, _ = run(recipe(), "--json")
    assert states(out) == UNCHANGED, "the old settings find the old run"
    assert json.loads(out)["run"] == str(made)

    shutil.rmtree(made)
    code, out, err = run(recipe(), "--json")
    assert states(out) == {**UNCHANGED, "train": "done"}, "what was removed is made again"
    assert (made / "model" / "model.safetensors").read_bytes() == weights
    assert len(asked()) == 8


def test_new_prompts_are_asked_and_old_ones_are_neither_asked_again_nor_trained(folder, recipe, run, asked):
    run(recipe())
    write_rows(folder / "prompts.jsonl", [{"prompt": f"question {n}"} for n in (9, 2, 5, 8)])
    code, out, err = run(recipe(), "--json")
    assert code == 0, err
    assert sorted(asked()[8:]) == ["question 8", "question 9"]
    rows = [json.loads(line) for line in (folder / "out" / "transcripts-2.jsonl").read_text().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == [f"question {n}" for n in (9, 2, 5, 8)]
    assert len((folder / "out" / "answers.jsonl").read_text().splitlines()) == 10
    assert json.loads(out)["run"].endswith("run-2")


def test_two_recipes_may_share_their_answers(folder, recipe, run, asked):
    run(recipe(collect={"out": "answers.jsonl"}, out="one"))
    code, _, err = run(recipe(collect={"out": "answers.jsonl"}, out="two"))
    assert code == 0, err
    assert len(asked()) == 8
    assert (folder / "two" / "run" / "model").is_dir()


def test_failed_rows_stop_the_recipe_unless_they_are_accepted(folder, recipe, run, asked, monkeypatch):
    monkeypatch.setenv("REFUSED", "question 3")
    code, _, err = run(recipe(collect={"retries": 0}))
    assert code == 1
    assert "1 of 8 rows failed, 1 of them so: no answer to that" in err
    assert "max-failed: 13%" in err
    assert not (folder / "out" / "run").exists()
    code, out, err = run(recipe(collect={"retries": 0, "max-failed": "13%"}), "--json")
    assert code == 0, err
    assert json.loads(out)["steps"][2]["result"]["rows"] == 7
    monkeypatch.delenv("REFUSED")
    code, out, _ = run(recipe(collect={"retries": 0}), "--json")
    assert states(out) == DONE, "stricter now: the row is asked for again, and there"
    assert json.loads(out)["steps"][2]["result"]["rows"] == 8


def test_findings_of_the_label_proof_stop_the_recipe_unless_they_are_allowed(folder, recipe, run):
    write_rows(folder / "held-out.jsonl", [{"prompt": "question 1", "completion": "yes"}])
    code, _, err = run(recipe(check={"against": "held-out.jsonl"}))
    assert code == 1
    assert "check: 1 × leakage" in err and "`check: {allow: [leakage]}`" in err
    assert not (folder / "out" / "run").exists()
    code, _, err = run(recipe(check={"against": "held-out.jsonl", "allow": "leakage"}))
    assert code == 0, err


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"trainer-options": {"warmup_stepps": 3}}}, "did you mean 'warmup_steps'?"),
        ({"train": {"trainer-options": {"optim": "no-such"}}}, "the trainer refuses its setti"),
        ({"train": {"trainer": "hff"}}, "unknown trainer 'hff'"),
        ({"train": {"labeler-options": {"reasonin": True}}}, "did you mean 'reasoning'?"),
        ({"train": {"labeler-options": {"reasoning": "perhaps"}}}, "takes bool, not 'perhaps'"),
        ({"train": {"formatter": "chat-templat"}}, "did you mean 'chat-template'?"),
        ({"train": {"student": "./nowhere"}}, "no model at './nowhere'"),
        ({"train": {"batch-size": 2, "batch-tokens": 99}}, "exclude each other"),
        ({"train": {"lora-rank": 2}}, "`lora-rank` goes with `lora`"),
        ({"train": {"qlora": True}}, "`qlora` needs"),
        ({"check": {"allow": ["leakige"]}}, "did you mean 'leakage'?"),
        ({"check": {"against": "nowhere.jsonl"}}, "no file"),
        ({"collect": {"teacher": "scriptd"}}, "did you mean 'scripted'?"),
        ({"collect": {"teacher-options": {"x": 1}}}, "unknown option of teacher 'scripted'"),
        ({"collect": {"base-url": "http://x"}}, "has no `base-url`"),
        ({"collect": {"max-usd": 1}}, "the price of 'scripted' is not known"),
        ({"collect": {"out": "out/transcripts.jsonl"}}, "lies in the recipe's own folder"),
        ({"prompts": "nowhere.jsonl"}, "no file"),
        ({"train": {"hold-out": "100%"}}, "would leave nothing on one side"),
        ({"train": {"hold-out": "all"}}, "must be a percentage or a count"),
        ({"compare": {}}, "needs conversations that are not trained on"),
        ({"compare": {"data": "held-out.jsonl", "judge-options": {"x": 1}}}, "goes with `judge`"),
        ({"compare": {"data": "held-out.jsonl", "teacher": "nobody"}}, "unknown teacher 'nobody'"),
    ],
    ids=str,
)
def test_what_is_wrong_shows_before_the_first_request(folder, recipe, run, asked, sections, said):
    code, _, err = run(recipe(**sections))
    assert code in (1, 2)
    assert said in err
    assert err.startswith(f"Error: {folder / 'recipe.yaml'}:"), "it says where"
    assert not asked() and not (folder / "out").exists()


def test_a_broken_prompt_shows_before_the_first_request(folder, recipe, run, asked):
    with (folder / "prompts.jsonl").open("a") as file:
        file.write('{"promt": "x"}\n')
    code, _, err = run(recipe())
    assert code == 1
    assert f"{folder / 'prompts.jsonl'}:9" in err
    assert not asked()


def test_a_folder_of_something_else_is_left_alone(folder, recipe, run, asked):
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("years of work")
    code, _, err = run(recipe())
    assert code == 2
    assert "holds something that no recipe made" in err
    assert not asked() and [path.name for path in (folder / "out").iterdir()] == ["thesis.tex"]


def test_two_at_a_time_are_refused(folder, recipe, run):
    with owned(folder / "out"):
        code, _, err = run(recipe())
    assert code == 1
    assert "out: another process is writing to it" in err


def test_a_dry_run_says_what_would_run_and_writes_nothing(folder, recipe, run, asked):
    code, out, _ = run(recipe(), "--dry-run")
    assert code == 0
    assert "collect  would run: not done yet" in out and "8 requests for 8 rows" in out
    assert "train    would run: after collect" in out
    assert not asked() and not (folder / "out").exists()
    run(recipe())
    code, out, _ = run(recipe(train={"epochs": 2}), "--dry-run", "--json")
    assert states(out) == {"collect": "unchanged", "check": "unchanged", "train": "would run"}
    train = json.loads(out)["steps"][2]
    assert train["why"] == "epochs is 2.0, was 1.0"
    assert "memory" in train["plan"][1]
    assert not (folder / "out" / "run-2").exists()


def test_the_verdict_on_what_was_held_out_is_the_end_and_the_exit_code(folder, recipe, run):
    path = recipe(train={"hold-out": 3}, compare={"max-tokens": 8})
    code, out, err = run(path)
    comparison = json.loads((folder / "out" / "comparison.json").read_text())
    assert comparison["conversations"] == 3
    assert "<html" in (folder / "out" / "comparison.html").read_text()
    assert f"student against its base: {comparison['verdict']}" in out
    assert code == 0, err
    code, out, err = run(recipe(train={"hold-out": 3}, compare={"max-tokens": 8, "require": "better"}))
    assert code == (0 if comparison["verdict"] == "better" else 3), err
    assert ("the recipe requires: better" in err) == (code == 3) and "compare: nothing has changed" in err
    assert run(path)[0] == code, "the same when nothing has changed"
    (folder / "out" / "run" / "held_out.jsonl").unlink()
    code, _, err = run(path)
    assert code == 1 and "held_out.jsonl is gone" in err


def test_interrupted_it_says_how_to_go_on(folder, recipe, run, asked, monkeypatch):
    from distill.recipes import steps

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(steps, "gather", interrupt)
        code, _, err = run(recipe())
    assert code == 130
    assert "stopped in collect; the same command goes on from there" in err
    assert run(recipe())[0] == 0
    assert len(asked()) == 8


def test_long_rows_stop_it_unless_training_may_drop_them(folder, recipe, run, asked):
    write_rows(folder / "prompts.jsonl", [{"prompt": "short"}, {"prompt": "long " * 60}])
    code, _, err = run(recipe(train={"max-length": 90}))
    assert code == 1 and "check: 1 × overlong" in err
    code, out, err = run(recipe(train={"max-length": 90, "overlong": "drop"}), "--json")
    assert code == 0, err
    assert json.loads(out)["steps"][2]["result"]["trained_rows"] == 1
    assert len(asked()) == 2


def test_paths_are_relative_to_the_recipe(folder, recipe, run, asked, monkeypatch, bloom):
    run(recipe())
    shutil.copytree(bloom, folder / "student")
    shutil.copy(folder / "out" / "answers.jsonl", folder / "recorded.jsonl")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    path = recipe(collect={"teacher": "replay:recorded.jsonl"}, train={"student": "student"}, out="again")
    code, _, err = run("../recipe.yaml")
    assert code == 0, err
    assert (folder / "again" / "run" / "model").is_dir() and path.is_file()
    assert not any((folder / "elsewhere").iterdir())


def test_several_processes_are_told_what_to_do(recipe, run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(recipe())
    assert code == 2 and "torchrun" in err
