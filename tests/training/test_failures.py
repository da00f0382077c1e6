"""What goes wrong in a training ends it early, with one clear line, and never with half a student."""

from __future__ import annotations

import errno
import json
import math
import os

import pytest
import torch

from distill import DistillError, TrainerSpec, TrainResult, UsageError, hookimpl
from distill.cli.main import main
from distill.plugins import PluginRecord, make_plugin_manager
from distill.testing import save_student, tiny_bloom
from distill.training import TrainSettings, train
from distill.training.checkpoints import checkpoints_in, find_newest
from distill.training.failures import check_finite_row

TRAINERS = ("hf", "trl")


def run(manager, student, data, out, *, resume=False, on_log=lambda row: None, **settings):
    defaults = {"epochs": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "formatter": "special-tokens"}
    made = TrainSettings(str(student), (data,), out, **{**defaults, **settings})
    return train(made, manager, resume=resume, on_log=on_log)


@pytest.fixture
def with_trainer():
    """A manager with a trainer `mine` that does what the given function does."""

    def make(function):
        class Plugin:
            @hookimpl
            def register_trainers(self):
                return [TrainerSpec("mine", "a test's", lambda options: self)]

            def train(self, job, on_log):
                return function(job, on_log)

        manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
        manager.load(PluginRecord("mine", "test"), Plugin)
        return manager

    return make


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_a_logged_value_that_is_not_finite_stops(key, value):
    row = {"step": 7.0, "loss": 1.0, "grad_norm": 1.0, key: value}
    with pytest.raises(DistillError, match=rf"is {value} at step 7; training stopped, no model was written") as caught:
        check_finite_row(row, "checkpoint-5")
    assert "checkpoint-5 holds the last good weights" in caught.value.hint
    check_finite_row({"step": 7.0, "loss": 1.0}, None)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_weights_that_break_while_training(manager, bloom, article, tmp_path, trainer):
    """A learning rate far too high: it stops, the last good checkpoint is whole, and nothing not finite is saved."""
    out = tmp_path / "run"
    with pytest.raises(DistillError, match=r"is (nan|inf) at step") as caught:
        run(
            manager, bloom, article, out, trainer=trainer, epochs=50, learning_rate=1e20, save_steps=1,
            trainer_options={"max_grad_norm": "0"},
        )  # fmt: skip
    assert "lower --learning-rate" in caught.value.hint
    assert not (out / "model").exists()
    for checkpoint in checkpoints_in(out / "checkpoints"):
        from safetensors.torch import load_file

        assert all(weight.isfinite().all() for weight in load_file(checkpoint / "model.safetensors").values())
    for line in (out / "metrics.jsonl").read_text().splitlines():
        assert math.isfinite(json.loads(line)["loss"])


def test_a_loss_is_looked_at_before_a_checkpoint_counts(manager, article, tmp_path):
    """Also where it is not logged at each step."""
    model, tokenizer = tiny_bloom()
    torch.nn.init.constant_(model.transformer.h[0].mlp.dense_h_to_4h.weight, float("nan"))
    student, out = save_student(model, tokenizer, tmp_path / "student"), tmp_path / "run"
    with pytest.raises(DistillError, match="the loss is nan at step 2"):
        run(manager, student, article, out, save_steps=2, trainer_options={"logging_steps": "100"})
    assert checkpoints_in(out / "checkpoints") == []


def test_weights_that_are_not_finite_are_never_saved(with_trainer, bloom, article, tmp_path):
    def ruin(job, on_log):
        next(job.model.parameters()).data.fill_(math.inf)
        return TrainResult(1, 0.0)

    with pytest.raises(DistillError, match="holds values that are not finite; no model was written"):
        run(with_trainer(ruin), bloom, article, tmp_path / "run", trainer="mine")
    assert not (tmp_path / "run/model").exists()


def _no_cpu_memory():
    torch.empty(1 << 58, dtype=torch.int8)


def _no_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore words.")


def _no_python_memory():
    raise MemoryError


@pytest.mark.parametrize("fail", [_no_cpu_memory, _no_gpu_memory, _no_python_memory])
def test_out_of_memory_says_what_to_lower(with_trainer, bloom, article, tmp_path, fail):
    with pytest.raises(DistillError, match="out of memory while training") as caught:
        run(with_trainer(lambda job, on_log: fail()), bloom, article, tmp_path / "run", trainer="mine")
    assert (
        "--batch-size (it is 2;" in caught.value.hint and "--max-length (the longest example has" in caught.value.hint
    )
    assert "\n" not in caught.value.message


def test_out_of_memory_while_loading(manager, bloom, article, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.training.student.load_model", lambda ref: _no_cpu_memory())
    with pytest.raises(DistillError, match="out of memory while loading the student"):
        run(manager, bloom, article, tmp_path / "run")


def test_other_errors_of_a_trainer_keep_their_traceback(with_trainer, bloom, article, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(with_trainer(lambda job, on_log: 1 / 0), bloom, article, tmp_path / "run", trainer="mine")


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_the_student_is_saved(manager, bloom, article, tmp_path, monkeypatch):
    """The student is whole or absent, and once there is space, the training goes on from its checkpoint."""
    out = tmp_path / "run"

    def full(self, folder, **kwargs):
        if "checkpoint" in str(folder):
            return save_pretrained(self, folder, **kwargs)
        (folder / "model.safetensors").write_bytes(b"half")
        raise FULL

    from transformers import PreTrainedModel

    save_pretrained = PreTrainedModel.save_pretrained
    with (
        monkeypatch.context() as patch,
        pytest.raises(DistillError, match=r"the disk is full: .* saving the student") as caught,
    ):
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        run(manager, bloom, article, out, save_steps=4)
    assert "--resume" in caught.value.hint
    assert not list(out.glob("*model*")), "nothing half-made, hidden or not"
    report = run(manager, bloom, article, out, resume=True)
    assert report.resumed_from == "checkpoint-8" and (out / "model/model.safetensors").is_file()


@pytest.mark.parametrize("name", ["os.fsync", "torch.save"])
def test_a_full_disk_while_a_checkpoint_is_saved(manager, bloom, article, tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    real = {"os.fsync": os.fsync, "torch.save": torch.save}[name]

    def full(*args, **kwargs):
        if len(list((out / "checkpoints").glob("*/complete.json"))) == 1:
            raise FULL if name == "os.fsync" else RuntimeError("PytorchStreamWriter failed writing file data/0")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(DistillError, match="the disk is full"):
        patch.setattr(name, full)
        run(manager, bloom, article, out, save_steps=2)
    assert find_newest(out / "checkpoints").newest == out / "checkpoints/checkpoint-2"
    assert not (out / "model").exists()
    assert run(manager, bloom, article, out, resume=True).resumed_from == "checkpoint-2"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("output_dir=x", "output_dir is set by --out"),
        ("resume_from_checkpoint=x", "resume_from_checkpoint is set by --resume"),
        ("save_strategy=epoch", "save_strategy is set by --save-steps"),
        ("label_names=[]", "label_names cannot be set: the examples are labelled already"),
        ("logging_nan_inf_filter=true", "logging_nan_inf_filter cannot be set"),
        ("save_only_model=true", "save_only_model cannot be set: a stopped training must resume exactly"),
        ("auto_find_batch_size=true", "auto_find_batch_size cannot be set"),
        ("eval_strategy=epoch", "eval_strategy cannot be set: held-out rows are evaluated by --hold-out"),
        ("logging_step=2", "unknown option of trainer 'hf': 'logging_step'"),
        ("report_to=nobody", "trainer 'hf': report_to: "),
    ],
)
def test_trainer_options_that_distill_owns(bloom, article, tmp_path, capfd, option, complaint):
    words = ["train", str(article), "--student", str(bloom), "--out", str(tmp_path / "run"), "-T", option]
    assert main(words) == 2
    assert complaint in capfd.readouterr().err


def test_a_tracker_gets_the_metrics_and_so_does_the_run(manager, bloom, article, tmp_path, monkeypatch):
    """`report_to` names one of transformers' own; what it is told is what `metrics.jsonl` holds."""
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    told = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: True)
    run(manager, bloom, article, tmp_path / "run", trainer_options={"report_to": "trackio"})
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in told if "loss" in row] and len(rows) == 9


def test_lora_options_need_lora(bloom, article, tmp_path, capfd):
    words = ["train", str(article), "--student", str(bloom), "--out", str(tmp_path / "run"), "--lora-rank", "4"]
    assert main(words) == 2 and "--lora-rank goes with --lora" in capfd.readouterr().err


def test_usage_errors_come_before_the_model_loads(manager, bloom, article, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.training.student.load_model", lambda ref: pytest.fail("weights loaded"))
    with pytest.raises(UsageError, match="the trainer refuses its settings"):
        run(manager, bloom, article, tmp_path / "run", trainer_options={"optim": "nonsense"})
    assert not (tmp_path / "run").exists()


def test_gradient_checkpointing_by_its_old_name_is_heard():
    """transformers 5.2x drops it in silence where the new name has a value, which distill gives it."""
    from trl import SFTConfig

    from distill.builtin.trainers.hugging_face import check_options

    assert check_options({"gradient_checkpointing": True}, SFTConfig, "trl") == {"activation_checkpointing": True}
