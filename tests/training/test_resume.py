"""A training that was stopped, anywhere and anyhow, ends with the very weights of one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill import DistillError, UsageError
from distill.cli.main import main
from distill.testing import save_student, tiny_bloom
from distill.training import LoraSettings, TrainSettings, train
from distill.training.checkpoints import RunCheckpoints, checkpoints_in, find_newest
from distill.training.distributed import World

TRAINERS = ("hf", "trl")


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    """A tiny BLOOM that drops out: its training depends on the state of the random numbers."""
    model, tokenizer = tiny_bloom()
    model.config.hidden_dropout = model.config.attention_dropout = 0.1
    return save_student(model, tokenizer, tmp_path_factory.mktemp("models") / "dropout")


class Killed(Exception):
    """The process is gone."""


def run(manager, student, data, out, *, resume=False, kill_after=None, note=lambda text: None, **settings):
    """Train 6 steps of 2 × 1 rows in 2 epochs; `kill_after` ends it right after that step, before it can save."""
    defaults = {"epochs": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    made = TrainSettings(str(student), (data,), out, formatter="special-tokens", **{**defaults, **settings})

    def on_log(row):
        if row["step"] == kill_after:
            raise Killed

    return train(made, manager, resume=resume, on_log=on_log, note=note)


def weights(out) -> dict[str, torch.Tensor]:
    return load_file(out / "model/model.safetensors")


def rows(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same(out, whole):
    ours, theirs = weights(out), weights(whole)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name
    assert rows(out) == rows(whole)


def newest(out) -> str:
    return checkpoints_in(out / "checkpoints")[0].name


# Each trainer, and each collator: `copy` and `masked` share theirs. test_thirty_kill_points takes every labeler.
@pytest.mark.parametrize(("labeler", "trainer"), [("masked", "hf"), ("trl", "trl")])
def test_the_student_is_the_same_as_without_the_stop(manager, student, article, tmp_path, labeler, trainer):
    """Killed after step 2 (nothing saved since 1), within the first epoch, and again after step 5."""
    how = {"labeler": labeler, "trainer": trainer}
    whole = run(manager, student, article, tmp_path / "whole", **how)
    out = tmp_path / "run"
    for kill_after, resume in ((2, False), (5, True)):
        with pytest.raises(Killed):
            run(manager, student, article, out, resume=resume, kill_after=kill_after, save_steps=1, **how)
        assert newest(out) == f"checkpoint-{kill_after - 1}" and not (out / "model").exists()
    notes = []
    report = run(manager, student, article, out, resume=True, note=notes.append, **how)
    assert f"resuming from {out}/checkpoints/checkpoint-4" in notes
    assert (report.steps, report.loss, report.resumed_from) == (6, whole.loss, "checkpoint-4")
    assert_same(out, tmp_path / "whole")
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labeler", "steps"), [("masked", range(1, 31)), ("copy", range(2, 31, 3)), ("trl", range(3, 31, 3))]
)
def test_thirty_kill_points(manager, student, article, tmp_path, labeler, steps):
    how = {"labeler": labeler, "epochs": 10}
    run(manager, student, article, tmp_path / "whole", **how)
    for step in steps:
        out = tmp_path / str(step)
        with pytest.raises(Killed):
            run(manager, student, article, out, kill_after=step, save_steps=3, **how)
        report = run(manager, student, article, out, resume=True, **how)
        assert report.resumed_from == (f"checkpoint-{(step - 1) // 3 * 3}" if step > 3 else None)
        assert_same(out, tmp_path / "whole")


@pytest.mark.parametrize(
    "how", [{"lora": LoraSettings(r=4, dropout=0.1)}, {"batch_tokens": 64}], ids=["lora", "tokens"]
)
def test_adapters_and_token_budgets_are_resumed_exactly(manager, student, article, tmp_path, how):
    run(manager, student, article, tmp_path / "whole", **how)
    with pytest.raises(Killed):
        run(manager, student, article, tmp_path / "run", kill_after=4, save_steps=1, **how)
    run(manager, student, article, tmp_path / "run", resume=True, **how)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="session")
def stopped(manager, student, tmp_path_factory):
    """A run that was killed after its fifth step, with checkpoints of the second and the fourth; and its data."""
    from article import ARTICLE

    folder = tmp_path_factory.mktemp("stopped")
    data = folder / "article.jsonl"
    chats = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in ARTICLE]
    data.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    run(manager, student, data, folder / "whole")
    with pytest.raises(Killed):
        run(manager, student, data, folder / "run", kill_after=5, save_steps=2)
    return folder


@pytest.fixture
def copied(stopped, tmp_path) -> Path:
    """A copy of the stopped run, to damage."""
    import shutil

    shutil.copytree(stopped / "run", tmp_path / "run")
    return tmp_path / "run"


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "complete.json"]


def test_every_file_of_a_checkpoint_is_known(stopped):
    checkpoint = checkpoints_in(stopped / "run/checkpoints")[0]
    listed = json.loads((checkpoint / "complete.json").read_text())["files"]
    assert {path.name for path in checkpoint.iterdir()} == {*listed, "complete.json"} >= set(FILES)


@pytest.mark.parametrize("damage", ["missing", "half", "zero", "one bit"])
def test_a_damaged_checkpoint_is_never_resumed_from(copied, damage):
    """Each file of the newest one: the one before it is taken, and the reason is said."""
    newer, older = checkpoints_in(copied / "checkpoints")
    for path in sorted(newer.iterdir()):
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "half":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "zero":
            path.write_bytes(b"")
        elif path.name != "complete.json":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        else:
            continue
        found = find_newest(copied / "checkpoints")
        assert found.newest == older, path.name
        reason = path.name if path.name != "complete.json" or damage != "missing" else "it was never completed"
        assert found.notes[0].startswith("checkpoint-4 cannot be used: ") and reason in found.notes[0]
        path.write_bytes(content)
    assert find_newest(copied / "checkpoints").newest == newer


@pytest.mark.parametrize("name", ["optimizer.pt", "complete.json"])
def test_a_run_falls_back_to_the_checkpoint_before(manager, student, stopped, copied, name):
    (copied / "checkpoints/checkpoint-4" / name).write_bytes(b"")
    notes = []
    report = run(manager, student, stopped / "article.jsonl", copied, resume=True, note=notes.append)
    assert report.resumed_from == "checkpoint-2" and f"checkpoint-4 cannot be used: {name}" in " ".join(notes)
    assert_same(copied, stopped / "whole")


class Hostile:
    """A pickle that runs something when it is read."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_a_hostile_checkpoint_runs_nothing(manager, student, stopped, copied, tmp_path, name):
    """Its own list of hashes may be forged too; what it holds is read as weights and numbers only."""
    checkpoint = copied / "checkpoints/checkpoint-4"
    torch.save({"state": Hostile(tmp_path / "ran")}, checkpoint / name)
    content, listed = (checkpoint / name).read_bytes(), json.loads((checkpoint / "complete.json").read_text())
    listed["files"][name] = [len(content), hashlib.sha256(content).hexdigest()]
    (checkpoint / "complete.json").write_text(json.dumps(listed))
    with pytest.raises(DistillError, match="cannot be read while training: it is damaged, or holds something other"):
        run(manager, student, stopped / "article.jsonl", copied, resume=True)
    assert not (tmp_path / "ran").exists()


def test_without_any_whole_checkpoint_it_refuses(manager, student, stopped, copied):
    for checkpoint in checkpoints_in(copied / "checkpoints"):
        (checkpoint / "optimizer.pt").unlink()
    before = sorted(copied.rglob("*"))
    with pytest.raises(DistillError, match=r"no checkpoint in .* is whole: checkpoint-4 .*optimizer.pt is missing"):
        run(manager, student, stopped / "article.jsonl", copied, resume=True)
    assert sorted(copied.rglob("*")) == before


def test_without_any_checkpoint_it_begins(manager, student, article, stopped, tmp_path):
    """A job that is put back into its queue can have `--resume` from the start."""
    out, notes = tmp_path / "run", []
    run(manager, student, stopped / "article.jsonl", out, resume=True, note=notes.append)
    assert "there is no checkpoint yet: starting at the beginning" in notes
    assert_same(out, stopped / "whole")


def test_a_metrics_line_cut_by_a_kill_does_not_count(manager, student, stopped, copied):
    with open(copied / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    run(manager, student, stopped / "article.jsonl", copied, resume=True)
    assert_same(copied, stopped / "whole")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"learning_rate": 2e-3}, "learning-rate changed (0.001 → 0.002)"),
        ({"epochs": 3}, "epochs changed (2 → 3)"),
        ({"seed": 1}, "seed changed (0 → 1)"),
        ({"labeler": "copy"}, 'labeler changed ("masked" → "copy")'),
        ({"trainer_options": {"weight_decay": "0.1"}}, 'trainer-options changed ({} → {"weight_decay": "0.1"})'),
        ({"lora": LoraSettings()}, "lora changed (false → true)"),
    ],
)
def test_changed_settings_are_refused(manager, student, stopped, copied, changed, named):
    with pytest.raises(DistillError, match="cannot resume") as caught:
        run(manager, student, stopped / "article.jsonl", copied, resume=True, **changed)
    assert named in caught.value.message


def test_changed_data_students_and_versions_are_refused(manager, bloom, student, stopped, copied, monkeypatch):
    data = stopped / "article.jsonl"
    other = copied.parent / "other.jsonl"
    other.write_text(data.read_text().replace("perro", "can"))
    with pytest.raises(DistillError, match=r"other.jsonl changed"):
        run(manager, student, other, copied, resume=True)
    with pytest.raises(DistillError, match="the student changed"):
        run(manager, bloom, data, copied, resume=True)
    manifest = json.loads((copied / "run.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (copied / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(DistillError, match=f"version of torch changed .1.0 → {torch.__version__}".replace("+", r"\+")):
        run(manager, student, data, copied, resume=True)
    (copied / "run.json").write_text("{")
    with pytest.raises(DistillError, match=r"run.json is damaged"):
        run(manager, student, data, copied, resume=True)


def test_the_work_of_a_stopped_run_is_not_thrown_away(manager, student, stopped, copied):
    with pytest.raises(UsageError, match="was stopped after checkpoint-4") as caught:
        run(manager, student, stopped / "article.jsonl", copied)
    assert "--resume continues" in caught.value.hint


def test_a_finished_run_stays_as_it_is(manager, student, stopped, tmp_path):
    whole = stopped / "whole"
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in whole.rglob("*")}
    notes = []
    report = run(manager, student, stopped / "article.jsonl", whole, resume=True, note=notes.append)
    assert notes == [f"{whole} is finished: nothing to do"] and report.steps == 6
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in whole.rglob("*")} == before
    with pytest.raises(DistillError, match=r"epochs changed .2 → 5"):
        run(manager, student, stopped / "article.jsonl", whole, resume=True, epochs=5)


def test_a_run_killed_after_its_student_was_saved_is_completed(manager, student, stopped, tmp_path, monkeypatch):
    data, out = stopped / "article.jsonl", tmp_path / "run"

    def die(self, manifest, keep_checkpoints):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("distill.runs.folder.RunFolder.finish", die)
        run(manager, student, data, out)
    assert json.loads((out / "run.json").read_text())["state"] == "training"
    report = run(manager, student, data, out, resume=True)
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["state"] == "finished" and manifest["report"]["loss"] == report.loss
    assert report.steps == 6 and (out / "report.html").is_file()
    assert_same(out, stopped / "whole")


def test_what_a_kill_leaves_while_a_file_is_written_is_no_obstacle_and_goes(manager, student, stopped, tmp_path):
    """At the very first file of a run; and at the last, the student's."""
    data, out = stopped / "article.jsonl", tmp_path / "run"
    out.mkdir()
    (out / ".run.json.tmp").write_text('{"state": "trai')
    with pytest.raises(Killed):
        run(manager, student, data, out, kill_after=4, save_steps=2, resume=True)
    for half in (".model-x1", ".adapter-x2"):
        (out / half).mkdir()
        (out / half / "model.safetensors").write_bytes(bytes(10))
    run(manager, student, data, out, resume=True)
    assert_same(out, stopped / "whole")
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(("limit", "kept"), [(None, []), (1, [6]), (3, [6, 5, 4])])
def test_how_many_checkpoints_are_kept(manager, student, stopped, tmp_path, limit, kept):
    out = tmp_path / "run"
    run(manager, student, stopped / "article.jsonl", out, save_steps=1, save_total_limit=limit)
    assert checkpoints_in(out / "checkpoints") == [out / f"checkpoints/checkpoint-{step}" for step in kept]


def test_checkpoints_come_often_enough_and_not_too_often(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints = RunCheckpoints(tmp_path, World(), save_steps=None, limit=2, size=int(500e6))  # about 1 s to write
    saved = []
    for step in range(1, 2001):
        now += 1.0
        if checkpoints.after_step(step, max_steps=2000, epoch_end=step <= 100 or step == 2000) == "save":
            now += 5.0  # this disk is slower than was guessed
            (tmp_path / f"checkpoint-{step}").mkdir()
            checkpoints.seal(tmp_path / f"checkpoint-{step}")
            saved.append(step)
    assert saved == [10, 60, 960, 1860], "from 10 s on by the guess, then by what it took; within an epoch, 15 minutes"


def spawn(data, student, out, *words, **kwargs):
    command = [sys.executable, "-m", "distill", "train", data, "--student", student, "--out", out, *words]
    env = {**os.environ, "DISTILL_PLUGINS": ""}
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True, env=env, **kwargs)


def wait_for(path: Path, process) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_real_kill(manager, student, article, tmp_path):
    """`kill -9` in the midst of steps and checkpoints, then once to the end."""
    out, how = tmp_path / "run", ("--epochs", 12, "--batch-size", 2, "--save-steps", 1)
    first = spawn(article, student, out, *how)
    wait_for(out / "checkpoints/checkpoint-3/complete.json", first)
    first.kill()
    killed = first.wait() == -signal.SIGKILL  # a very busy machine may let it finish
    last = spawn(article, student, out, *how, "--resume")
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0 and "Traceback" not in err
    assert "resuming from" in err or not killed
    whole = TrainSettings(str(student), (article,), tmp_path / "whole", epochs=12, per_device_train_batch_size=2)
    train(whole, manager)
    assert_same(out, tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(student, article, tmp_path, capfd, signum, code):
    out = tmp_path / "run"
    process = spawn(article, student, out, "--epochs", 100000, "--save-steps", 1000000)
    wait_for(out / "metrics.jsonl", process)
    while not (out / "metrics.jsonl").stat().st_size:
        time.sleep(0.01)
    process.send_signal(signum)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    (checkpoint,) = checkpoints_in(out / "checkpoints")
    step = int(checkpoint.name.rpartition("-")[2])
    assert f"stopped after step {step}; the same command with --resume continues from there" in err
    assert "Traceback" not in err and err.splitlines()[-1] in ("Interrupted.", "Terminated.")
    assert len(rows(out)) == step and not (out / "model").exists()
    assert find_newest(out / "checkpoints").newest == checkpoint
    words = ["train", str(article), "--student", str(student), "--out", str(out), "--epochs", "100000"]
    assert main(words) == 2
    assert f"was stopped after {checkpoint.name}" in capfd.readouterr().err
