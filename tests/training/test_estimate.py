"""What `--dry-run` foretells: settings, steps, memory and disk, against what a training then takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill import PluginError, TrainerSpec, TrainPlan, hookimpl
from distill.cli.main import main
from distill.dataset.table import Examples
from distill.testing import bloom_tokenizer, byte_bpe, load_plugin, save_student
from distill.training import LoraSettings, TrainSettings, train
from distill.training.estimate import Batch, estimate, largest_batch
from distill.training.prepare_job import memory_hint, plan_job
from distill.types import Example


def fake(ref, batch=2, longest=40, projected=20, vocabulary=0, lora=None, **plan):
    settings = TrainSettings(str(ref), (), Path("unused"), lora=lora)
    largest = Batch(batch, longest, projected)
    return estimate(str(ref), settings, TrainPlan(**plan), largest, vocabulary=vocabulary, new_tokens=(), checkpoints=3)


def test_the_largest_batch_is_the_one_that_takes_most():
    examples = Examples.of([Example([0] * n, [-100, *range(n - 1)], str(n)) for n in (3, 9, 4, 8)])
    settings = TrainSettings("", (), Path("unused"), per_device_train_batch_size=2)
    assert largest_batch(settings, examples) == Batch(2, 9, 8 + 7)
    assert largest_batch(replace(settings, per_device_train_batch_size=9), examples) == Batch(4, 9, 8 + 7 + 3 + 2)
    assert largest_batch(replace(settings, batch_tokens=18), examples) == Batch(2, 9, 8 + 7)


def test_weights_are_counted_exactly(bloom):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bloom)
    found = fake(bloom)
    assert found.parameters == found.trained_parameters == sum(weight.numel() for weight in model.parameters())
    assert found.weights == found.gradients == 4 * found.parameters and found.optimizer == 8 * found.parameters
    assert found.checkpoint == 12 * found.parameters and found.peak_disk == (4 + 3 * 12) * found.parameters
    rows = model.get_input_embeddings().weight.shape[0]
    grown = fake(bloom, vocabulary=rows + 7)
    assert grown.parameters == found.parameters + 7 * 64


def test_activations_are_those_of_a_real_pass(bloom):
    """Within a few percent of the tensors that autograd keeps when the weights are there."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bloom).train()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros((2, 40), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = model.base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)[0]
    real = sum(storage.nbytes() for storage in kept.values())
    assert fake(bloom).activations == pytest.approx(real, rel=0.25)


def test_what_makes_it_more_and_less(bloom):
    plain = fake(bloom)
    assert fake(bloom, batch=4).activations == pytest.approx(2 * plain.activations, rel=0.1)
    assert fake(bloom, checkpointing=True).activations < plain.activations
    assert fake(bloom, precision="bfloat16").activations < plain.activations
    assert fake(bloom, optimizer_bytes=0).optimizer == 0
    assert fake(bloom, projected=40).logits == 2 * plain.logits
    lora = fake(bloom, lora=LoraSettings(r=4))
    assert 0 < lora.trained_parameters < plain.trained_parameters / 5 and lora.optimizer == 8 * lora.trained_parameters
    assert lora.parameters == plain.parameters + lora.trained_parameters


def test_the_built_in_trainers_plan_by_their_options(manager):
    for name in ("hf", "trl"):
        spec = manager.trainers.get(name)
        less = {"memory_options": ("-T gradient_checkpointing=true",)}
        assert spec.build({}).plan(12) == TrainPlan(12, **less, bfloat16_option="-T bf16=true")
        assert spec.build({"bf16": False}).plan(12) == TrainPlan(12, **less), "the user has decided"
        options = {"max_steps": 3, "bf16": True, "optim": "sgd", "gradient_checkpointing": True, "use_cpu": True}
        plan = spec.build(options).plan(12)
        assert plan == TrainPlan(3, "bfloat16", checkpointing=True, optimizer_bytes=0)


class WithoutPlan:
    """A trainer of somebody who has not heard of plans."""

    def train(self, job, on_log):
        raise NotImplementedError


class WritesData(WithoutPlan):
    def plan(self, steps):
        return TrainPlan(steps=0, optimizer_bytes=0)


class PlansBadly(WithoutPlan):
    def plan(self, steps):
        return {"steps": steps}


def dry_run(trainer, bloom, article, tmp_path):
    manager = load_plugin(SimpleNamespace(register_trainers=hookimpl(lambda: [TrainerSpec("mine", "", trainer)])))
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run", trainer="mine")
    notes = []
    return train(settings, manager, dry_run=True, note=notes.append), notes


def test_a_plugin_trainer_is_asked_or_taken_for_a_plain_loop(bloom, article, tmp_path):
    report, notes = dry_run(lambda options: WithoutPlan(), bloom, article, tmp_path)
    assert "does not know the chat format 'chat-template': it has to learn <|im_start|>, <|im_end|>" in notes[0]
    assert notes[1:] == ["trainer 'mine' does not plan its memory: estimated for float32 and AdamW"]
    assert report.steps == 3 and report.estimate.optimizer == 8 * report.estimate.trained_parameters
    report, notes = dry_run(lambda options: WritesData(), bloom, article, tmp_path)
    assert report.steps == report.estimate.gradients == report.estimate.activations == 0 and not notes[1:]
    with pytest.raises(PluginError, match=r"trainer 'mine': plan\(\) returned dict, not a TrainPlan"):
        dry_run(lambda options: PlansBadly(), bloom, article, tmp_path)


def test_the_hint_on_memory_names_what_the_trainer_offers(manager, bloom, article, tmp_path):
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run")
    hint = memory_hint(plan_job(settings, manager, 1), settings)
    assert hint.startswith("lower --batch-size (it is 8;")
    assert hint.endswith("; or add -T gradient_checkpointing=true or --lora")
    by_tokens = replace(
        settings, batch_tokens=500, lora=LoraSettings(), trainer_options={"gradient_checkpointing": True}
    )
    hint = memory_hint(plan_job(by_tokens, manager, 1), by_tokens)
    assert hint.startswith("lower --batch-tokens (it is 500) or --max-length") and "add" not in hint


def test_a_dry_run_shows_settings_with_their_origin(bloom, article, tmp_path, capsys):
    words = [
        "train",
        str(article),
        "--student",
        str(bloom),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "2",
        "--dry-run",
    ]
    assert main([*words, "-T", "max_steps=3"]) == 0
    shown = capsys.readouterr()
    lines = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if line.strip()}
    assert lines["epochs"] == ["2.0", "command", "line"] and lines["seed"] == ["0", "default"]
    assert lines["memory"][0] == "about" and lines["disk"][:2] == ["up", "to"]
    assert "would train 5 of 5 rows" in shown.err and "3 steps" in shown.err
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["epochs"] == {"value": 2.0, "origin": "command line"}
    assert found["estimate"]["peak_memory"] > found["estimate"]["process"] > 0 and found["steps"] == 2
    assert not (tmp_path / "run").exists()


def test_a_student_that_cannot_be_estimated(manager, bloom, article, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise NotImplementedError("no fake kernel")

    monkeypatch.setattr("distill.training.prepare_job.estimate", fail)
    notes = []
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run")
    assert train(settings, manager, dry_run=True, note=notes.append).estimate is None
    assert "cannot be estimated for this student: NotImplementedError: no fake kernel" in notes[-1]


def middling(kind: str):
    """A random student of some 30 million weights: large enough to be seen beside Python's own memory."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "bloom":
        config = BloomConfig(vocab_size=30_000, hidden_size=512, n_layer=6, n_head=8)
        return BloomForCausalLM(config), bloom_tokenizer()
    tokenizer = byte_bpe({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
    config = LlamaConfig(
        vocab_size=16_000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config), tokenizer


# Runs a command and prints the most KiB it had: from a small process, since Linux counts in what a child has before
# its program begins, which is the memory of who forked it.
MEASURE = """
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("bloom", ()),
        ("bloom", ("--batch-size", 2, "-T", "gradient_checkpointing=true")),
        ("llama", ()),
        ("llama", ("--lora",)),
        ("smollm2", ("--batch-size", 2)),
        ("smollm2", ("--batch-size", 2, "--lora")),
    ],
)
def test_memory_is_as_foretold(kind, more, tmp_path):
    """Within 25 % of the process's highest resident memory, all libraries included."""
    student = kind if kind == "smollm2" else save_student(*middling(kind), tmp_path / "student")
    data = tmp_path / "data.jsonl"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "perro gato " * 100}]
    # Two steps; with adapters more: the holes in the heap that the estimate counts on come with time.
    rows = 4 if "--batch-size" in more and "--lora" not in more else 16
    data.write_text((json.dumps({"messages": chat}) + "\n") * rows)
    words = ["train", data, "--student", student, "--out", tmp_path / "run", "--epochs", 1, "--labeler", "copy", *more]
    command = [sys.executable, "-m", "distill", *(str(word) for word in words)]
    foretold = json.loads(subprocess.check_output([*command, "--dry-run", "--json"]))["estimate"]["peak_memory"]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], check=True, stdout=subprocess.PIPE, text=True)
    assert foretold == pytest.approx(int(done.stdout.split()[-1]) * 1024, rel=0.25)
