"""Mixed precision on a CPU: it trains whatever float32 does, and is told where it was measured to be faster."""

from __future__ import annotations

import json

import pytest
from test_packing import llama  # noqa: F401 - a fixture
from test_shared_prefix import data_with_prompts

from distill.models import device
from distill.training import LoraSettings, TrainSettings, prepare_job, train

HOW = {"batch_tokens": 400, "epochs": 2.0, "learning_rate": 1e-3}


def losses(out) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("trainer", "more"),
    [
        ("hf", {}),
        ("trl", {"labeler": "trl", "formatter": "special-tokens"}),
        ("hf", {"packing": True}),
        ("hf", {"shared_prefix": "auto"}),
        ("trl", {"lora": LoraSettings(r=4)}),
    ],
    ids=["hf", "trl", "packing", "shared-prefix", "lora"],
)
@pytest.mark.parametrize("kind", ["bloom", "llama"])
def test_the_losses_are_those_of_float32_but_for_rounding(manager, request, tmp_path, kind, trainer, more):
    data, notes = data_with_prompts(tmp_path / "data.jsonl"), []
    student = str(request.getfixturevalue(kind))
    for name, options in (("full", {}), ("half", {"bf16": True})):
        settings = TrainSettings(
            student, (data,), tmp_path / name, trainer=trainer, trainer_options=options, **{**HOW, **more}
        )
        report = train(settings, manager, note=notes.append)
    assert report.computed_in == "bfloat16"
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "full"), rel=0.02)
    if kind == "llama":
        assert not [note for note in notes if note.startswith("warning")], "both are verified in their precision"


@pytest.mark.parametrize(
    ("gain", "options", "told"), [(4.26, {}, True), (1.1, {}, False), (4.26, {"bf16": False}, False)]
)
def test_a_cpu_that_is_faster_in_bfloat16_is_told(manager, bloom, article, tmp_path, monkeypatch, gain, options, told):
    monkeypatch.setattr(prepare_job, "bfloat16_gain", lambda width: gain)
    monkeypatch.setattr(prepare_job, "best_device", lambda: "cpu")
    monkeypatch.setattr(prepare_job, "_WIDE", 1)
    notes: list[str] = []
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run", trainer_options=options)
    train(settings, manager, dry_run=True, note=notes.append)
    line = "matrix products are 4.3 times as fast in bfloat16 on this CPU: -T bf16=true trains in mixed precision"
    assert (line in notes) == told


def test_the_gain_is_measured():
    assert 0 < device.bfloat16_gain(64) < 1000
