"""Evaluation while a student is trained: right, harmless to the training, and resumed to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_resume import Killed, assert_same, rows, student  # noqa: F401 - a fixture
from test_resume import run as run_training

from distill import TrainerSpec, TrainResult, UsageError, hookimpl
from distill.testing import load_plugin
from distill.training import LoraSettings, TrainSettings

WORDS = ["dog", "cat", "sun", "tree", "sea", "book", "milk", "bread", "door", "fish", "hand", "moon", "horse", "king"]


@pytest.fixture
def data(tmp_path) -> Path:
    """Short chats, of which about a third are held out."""
    path = tmp_path / "data.jsonl"
    chats = [
        [("user", f"Say {word}."), ("assistant", f"{word}, {word[::-1]}!" * (1 + n % 3))]
        for n, word in enumerate(WORDS)
    ]
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role, text in chat]}) for chat in chats]
    path.write_text("".join(line + "\n" for line in lines))
    return path


def train(manager, student, data, out, **how):  # noqa: F811
    return run_training(manager, student, data, out, **{"hold_out": "4", "per_device_train_batch_size": 2, **how})


def evaluated(out) -> list[dict]:
    return [row for row in rows(out) if "eval_loss" in row]


def steps(out) -> list[dict]:
    """The training's own rows, without what depends on the clock."""
    return [row for row in rows(out) if "loss" in row]


def by_hand(manager, out, labeler="masked") -> tuple[float, float]:
    """Held-out loss and agreement of the saved student, row by row, with torch's own cross-entropy."""
    from transformers import AutoModelForCausalLM

    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.prepare import prepare
    from distill.transcripts.reader import read_transcripts

    settings = TrainSettings(
        str(out / "model"), (out / "held_out.jsonl",), out, formatter="special-tokens", labeler=labeler
    )
    pipeline = make_pipeline(settings, manager)
    model = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    losses, hits = [], []
    for row in prepare(read_transcripts(out / "held_out.jsonl"), pipeline.encoder, pipeline.labeler).examples:
        with torch.inference_mode():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1].float()
        labels = torch.tensor(row.labels[1:])
        counts = labels != -100
        losses.append(torch.nn.functional.cross_entropy(logits[counts], labels[counts], reduction="none"))
        hits.append(logits[counts].argmax(-1) == labels[counts])
    return torch.cat(losses).mean().item(), torch.cat(hits).float().mean().item()


@pytest.mark.parametrize(("trainer", "labeler"), [("hf", "masked"), ("trl", "trl")])
def test_the_held_out_loss_is_that_of_the_saved_student(manager, student, data, tmp_path, trainer, labeler):  # noqa: F811
    report = train(manager, student, data, tmp_path / "run", trainer=trainer, labeler=labeler)
    found = evaluated(tmp_path / "run")
    assert [row["step"] for row in found] == [3, 6]  # each epoch's end
    loss, agreement = by_hand(manager, tmp_path / "run", labeler)
    assert found[-1]["eval_loss"] == pytest.approx(loss, abs=1e-5)
    assert found[-1]["eval_agreement"] == pytest.approx(agreement, abs=1e-6)
    assert report.held_out_loss == found[-1]["eval_loss"] and report.best_step is None
    assert "held out" in (tmp_path / "run/report.html").read_text()


def test_evaluating_changes_nothing_of_the_training(manager, student, data, tmp_path):  # noqa: F811
    """Dropout on: the random numbers are left alone, too."""
    train(manager, student, data, tmp_path / "plain")
    train(manager, student, data, tmp_path / "often", eval_steps=1)
    assert [row["step"] for row in evaluated(tmp_path / "often")] == [1, 2, 3, 4, 5, 6]
    assert steps(tmp_path / "often") == steps(tmp_path / "plain")


def test_an_answer_of_many_tokens_is_scored_in_parts(manager, student, data, tmp_path, monkeypatch):  # noqa: F811
    train(manager, student, data, tmp_path / "whole")
    monkeypatch.setattr("distill.training.evaluation.CHUNK_LOGITS", 3 * 300)
    train(manager, student, data, tmp_path / "parts", batch_tokens=None)
    for one, other in zip(evaluated(tmp_path / "parts"), evaluated(tmp_path / "whole"), strict=True):
        assert one["eval_loss"] == pytest.approx(other["eval_loss"], abs=1e-6)
        assert one["eval_agreement"] == other["eval_agreement"]


OVERFIT = {"learning_rate": 0.1, "epochs": 3, "eval_steps": 1, "lr_scheduler_type": "constant"}


@pytest.mark.parametrize("lora", [None, LoraSettings(r=4)], ids=["all weights", "lora"])
def test_the_best_student_is_kept(manager, student, data, tmp_path, lora):  # noqa: F811
    out, notes = tmp_path / "run", []
    report = train(manager, student, data, out, keep="best", lora=lora, note=notes.append, **OVERFIT)
    best = min(evaluated(out), key=lambda row: row["eval_loss"])
    assert (report.best_step, report.held_out_loss) == (best["step"], best["eval_loss"])
    assert by_hand(manager, out)[0] == pytest.approx(best["eval_loss"], abs=1e-4)
    if lora is None:
        assert best["step"] < report.steps == 9  # else the last would do
    assert any(f"keeping the student of step {best['step']}" in note for note in notes)
    assert not (out / "checkpoints").exists()


def test_patience_stops(manager, student, data, tmp_path):  # noqa: F811
    report = train(manager, student, data, tmp_path / "run", keep="best", patience=2, **OVERFIT)
    found = evaluated(tmp_path / "run")
    assert report.steps == found[-1]["step"] < 9
    assert report.best_step == found[-3]["step"]
    assert [row["eval_loss"] > found[-3]["eval_loss"] for row in found[-2:]] == [True, True]


@pytest.mark.parametrize("trainer", ["hf", "trl"])
def test_a_killed_training_decides_as_one_that_was_not(manager, student, data, tmp_path, trainer):  # noqa: F811
    how = {"keep": "best", "patience": 3, "trainer": trainer, **OVERFIT}
    whole = train(manager, student, data, tmp_path / "whole", **how)
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(manager, student, data, out, kill_after=whole.best_step, save_steps=1, **how)
    for kill in (whole.best_step + 1, whole.steps - 1, whole.steps):
        with pytest.raises(Killed):
            train(manager, student, data, out, resume=True, kill_after=kill, save_steps=1, **how)
    report = train(manager, student, data, out, resume=True, **how)
    assert (report.steps, report.best_step, report.held_out_loss) == (whole.steps, whole.best_step, whole.held_out_loss)
    assert_same(out, tmp_path / "whole")


def test_lost_best_weights_are_told(manager, student, data, tmp_path):  # noqa: F811
    out, how = tmp_path / "run", {"keep": "best", **OVERFIT}
    with pytest.raises(Killed):
        train(manager, student, data, out, kill_after=3, save_steps=1, **how)
    (out / "checkpoints/best.safetensors").unlink()
    with pytest.raises(Exception, match="does not hold the weights of step"):
        train(manager, student, data, out, resume=True, **how)


def test_a_trainer_that_does_not_evaluate_is_told_of(student, data, tmp_path):  # noqa: F811
    class Silent:
        def train(self, job, on_log):
            on_log({"step": 1, "loss": 1.0, "learning_rate": 0.1})
            return TrainResult(1, 1.0)

    plugin = SimpleNamespace(register_trainers=hookimpl(lambda: [TrainerSpec("silent", "", lambda options: Silent())]))
    notes = []
    report = train(
        load_plugin(plugin), student, data, tmp_path / "run", trainer="silent", keep="best", note=notes.append
    )
    assert "warning: trainer 'silent' does not evaluate held-out rows; the last student is saved" in notes
    assert report.held_out_loss is report.best_step is None


@pytest.mark.parametrize("how", [{"eval_steps": 3}, {"keep": "best"}, {"patience": 2}])
def test_it_needs_held_out_rows(tmp_path, how):
    with pytest.raises(UsageError, match="needs held-out rows") as error:
        TrainSettings("bloom", (tmp_path,), tmp_path, **how)
    assert error.value.hint == "add --hold-out 10%"


def rates(out) -> list[float]:
    return [row["learning_rate"] for row in steps(out)]


@pytest.mark.parametrize("trainer", ["hf", "trl"])
def test_schedule_warm_up_and_weight_decay_are_settings(manager, student, data, tmp_path, trainer):  # noqa: F811
    how = {"trainer": trainer, "learning_rate": 0.01}
    train(manager, student, data, tmp_path / "a", lr_scheduler_type="constant_with_warmup", warmup_steps=2, **how)
    assert rates(tmp_path / "a") == pytest.approx([0.0, 0.005, 0.01, 0.01, 0.01, 0.01])
    train(manager, student, data, tmp_path / "b", lr_scheduler_type="cosine", warmup_ratio=0.3, weight_decay=0.5, **how)
    cosine = [0.01 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates(tmp_path / "b") == pytest.approx([0.0, 0.005, *cosine], rel=1e-6)
    train(manager, student, data, tmp_path / "c", lr_scheduler_type="cosine", warmup_ratio=0.3, **how)
    assert steps(tmp_path / "b")[-1]["loss"] != steps(tmp_path / "c")[-1]["loss"]
