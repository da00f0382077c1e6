"""Two processes, gloo on CPUs: the same training as one, told by the first, ended by a failure of either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from teacher_logprobs import write_told_rows

from distill.models.load import load_tokenizer
from distill.training import LoraSettings, TrainSettings, train
from distill.training.checkpoints import find_newest

pytestmark = pytest.mark.slow  # each starts two processes that import all of transformers


LAUNCHER = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def launch(*words):
    """Start `torchrun … -m distill …`."""
    command = [sys.executable, "-m", *LAUNCHER, "-m", "distill", *(str(word) for word in words)]
    env = {**os.environ, "DISTILL_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finish(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def words(data, student, out, *more):
    how = ("--batch-size", 1, "--epochs", 3, "--learning-rate", 1e-3, "--formatter", "special-tokens")
    return ("train", data, "--student", student, "--out", out, *how, *more)


def alone(manager, data, student, out, **more):
    how = {"per_device_train_batch_size": 2, "epochs": 3, "learning_rate": 1e-3, "formatter": "special-tokens"}
    return train(TrainSettings(str(student), (data,), out, **{**how, **more}), manager)


def rows(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_near(out, other, tolerance=1e-5):
    assert [row["step"] for row in rows(out)] == [row["step"] for row in rows(other)]
    for ours, theirs in zip(rows(out), rows(other), strict=True):
        assert ours.get("loss") == pytest.approx(theirs.get("loss"), abs=tolerance)
    ours, theirs = load_file(out / "model/model.safetensors"), load_file(other / "model/model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert (weight - theirs[name]).abs().max() <= tolerance, name


FSDP = ("-T", "fsdp=true")
CHATML = ("--formatter", "chat-template")  # its markers are new to the student: their rows are trained, too


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ((), {}),
        (
            ("--trainer", "trl", "--labeler", "copy", "--lora"),
            {"trainer": "trl", "labeler": "copy", "lora": LoraSettings()},
        ),
        (FSDP, {}),
        (("--lora", *CHATML, *FSDP), {"lora": LoraSettings(), "formatter": "chat-template"}),
    ],
    ids=["hf", "trl-lora", "fsdp", "lora-fsdp"],
)
def test_two_processes_train_as_one(manager, bloom, article, tmp_path, more, settings):
    out, err = finish(launch(*words(article, bloom, tmp_path / "two", *more), "--json"))
    alone(manager, article, bloom, tmp_path / "one", **settings)
    assert_near(tmp_path / "two", tmp_path / "one")
    assert json.loads(out)["steps"] == 9, "one report, and nothing else"
    assert err.count("saving the student") == 1
    manifest = json.loads((tmp_path / "two/run.json").read_text())
    assert manifest["state"] == "finished" and manifest["device"] == {"kind": "cpu", "processes": 2}
    if "lora" in settings:
        ours, theirs = (load_file(tmp_path / run / "adapter/adapter_model.safetensors") for run in ("two", "one"))
        assert ours.keys() == theirs.keys()
        assert all((weight - theirs[name]).abs().max() <= 1e-5 for name, weight in ours.items())


FEW_LOGITS = """
from distill.training.kernels import supervised_head
supervised_head.CHUNK_LOGITS = 431 * 3
"""


@pytest.mark.parametrize(
    ("loss", "more", "settings"),
    [
        ("soft-labels", ("--lora", *FSDP), {"lora": LoraSettings()}),
        ("chunks", (), {}),
    ],
    ids=["soft-labels-lora-fsdp", "chunks"],
)
def test_two_processes_learn_from_the_teachers_distribution_as_one(manager, bloom, tmp_path, loss, more, settings):
    """Three positions at a time go through the LM head in the two processes, all at once in the one."""
    data = write_told_rows(tmp_path / "data.jsonl", load_tokenizer(str(bloom)))
    few = tmp_path / "few.py"
    few.write_text(FEW_LOGITS)
    finish(launch("--plugin", few, *words(data, bloom, tmp_path / "two", "--loss", loss, *more)))
    alone(manager, data, bloom, tmp_path / "one", loss=loss, **settings)
    assert_near(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("rate", "more", "settings"),
    [(0.1, FSDP, {}), (1e-3, ("--lora", "--trainer", "trl", *FSDP), {"lora": LoraSettings(), "trainer": "trl"})],
    ids=["fsdp", "lora-fsdp-trl"],
)
def test_two_processes_evaluate_as_one(manager, bloom, article, tmp_path, rate, more, settings):
    """One row is held out: one process has nothing to evaluate. At the high rate the best student is not the last."""
    how = ("--hold-out", 1, "--eval-steps", 1, "--keep", "best", "--learning-rate", rate)
    finish(launch(*words(article, bloom, tmp_path / "two", *more), *how))
    settings = {**settings, "learning_rate": rate, "hold_out": "1", "eval_steps": 1, "keep": "best"}
    report = alone(manager, article, bloom, tmp_path / "one", **settings)
    assert (report.best_step < report.steps) == (rate == 0.1)
    assert json.loads((tmp_path / "two/run.json").read_text())["report"]["best_step"] == report.best_step
    tolerance = rate / 100  # rounding grows with the steps
    assert_near(tmp_path / "two", tmp_path / "one", tolerance)
    measured = [[row["eval_loss"] for row in rows(tmp_path / run) if "eval_loss" in row] for run in ("two", "one")]
    assert len(measured[0]) == report.steps and measured[0] == pytest.approx(measured[1], abs=tolerance)


def test_two_processes_pack_as_one_pads(manager, article, tmp_path):
    from distill.testing import bloom_tokenizer, save_student, tiny_llama

    tokenizer = bloom_tokenizer()
    student = save_student(tiny_llama(tokenizer), tokenizer, tmp_path / "student")
    _, err = finish(launch(*words(article, student, tmp_path / "two", "--packing", "--batch-size", 2)))
    alone(manager, article, student, tmp_path / "one", gradient_accumulation_steps=2)
    assert_near(tmp_path / "two", tmp_path / "one")
    assert "warning" not in err
    assert json.loads((tmp_path / "two/run.json").read_text())["report"]["packed"] is True


def test_accelerate_launch(bloom, article, tmp_path):
    launcher = ("accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "1", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no")
    command = [sys.executable, "-m", *launcher, "-m", "distill", *words(article, bloom, tmp_path / "run")]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model").is_dir()


def test_a_stopped_training_of_two_goes_on_exactly(bloom, article, tmp_path):
    out = tmp_path / "run"
    process = launch(*words(article, bloom, out, *FSDP, "--epochs", 100000, "--save-steps", 1000000))
    deadline = time.monotonic() + 240
    while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert err.count("the same command with --resume continues from there") == 1, err
    step = len(rows(out))
    assert find_newest(out / "checkpoints").newest == out / f"checkpoints/checkpoint-{step}"


@pytest.mark.parametrize("more", [(), FSDP, ("--lora", *FSDP)], ids=["ddp", "fsdp", "lora-fsdp"])
def test_two_processes_resume_exactly(bloom, article, tmp_path, more):
    finish(launch(*words(article, bloom, tmp_path / "whole", "--save-steps", 2, "--save-total-limit", 9, *more)))
    out = tmp_path / "run"
    (tmp_path / "whole").rename(out)
    (out / "model").rename(tmp_path / "model")  # as if it had been killed after step 5
    for step in (6, 8):
        (out / f"checkpoints/checkpoint-{step}/complete.json").unlink()
    before = rows(out)
    assert (out / "checkpoints/checkpoint-4/optimizer.bin").exists() == (FSDP[1] in more), "FSDP's own kind"
    _, err = finish(launch(*words(article, bloom, out, "--save-steps", 2, "--save-total-limit", 9, *more), "--resume"))
    assert f"resuming from {out}/checkpoints/checkpoint-4" in err
    ours, theirs = load_file(out / "model/model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    assert all(weight.equal(theirs[name]) for name, weight in ours.items())
    assert [row["loss"] for row in rows(out)] == [row["loss"] for row in before]


FAULTY = """
import os, distill, torch

class Faulty:
    def label(self, encoded):
        if os.environ["RANK"] == "1":
            raise distill.PluginError("only here")
        return list(encoded.input_ids)

    def train(self, job, on_log):
        if os.environ["RANK"] == "1":
            raise MemoryError
        while True:
            torch.distributed.all_reduce(torch.ones(1))

@distill.hookimpl
def register_labelers():
    return [distill.LabelerSpec("faulty", "", lambda options, encoder: Faulty())]

@distill.hookimpl
def register_trainers():
    return [distill.TrainerSpec("faulty", "", lambda options: Faulty())]
"""


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        (("--learning-rate", 1e30, "-T", "max_grad_norm=0"), ["the loss is nan at step 2"]),
        (("--labelre", "masked"), None),
        (("--labeler", "maskd"), ["unknown labeler 'maskd'"]),
        (("--labeler", "faulty"), ["process 1: only here"]),
        (("--trainer", "faulty"), ["another process ended while training", "out of memory while training"]),
    ],
)
def test_a_failure_ends_both_and_is_said_once(bloom, article, tmp_path, more, errors):
    plugin = tmp_path / "faulty.py"
    plugin.write_text(FAULTY)
    process = launch("--plugin", plugin, *words(article, bloom, tmp_path / "run", *more))
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0 and not (tmp_path / "run/model").exists()
    if errors is not None:
        said = sorted(line for line in err.splitlines() if line.startswith("Error: "))
        assert len(said) == len(errors) and all(error in line for error, line in zip(errors, said, strict=True)), err
        assert "distill/train" not in err, "no traceback of ours"
