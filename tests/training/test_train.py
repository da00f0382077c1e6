"""Training on a tiny BLOOM: every labeler with every trainer, the same losses everywhere, a whole run folder."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill import DataError, DistillError, PluginError, TrainerSpec, TrainResult, UsageError, hookimpl
from distill.models.precision import cast_weights
from distill.plugins import PluginRecord, make_plugin_manager
from distill.testing import byte_bpe, save_student, tiny_bloom, tiny_llama
from distill.training import LoraSettings, TrainSettings, train

LABELERS = ("copy", "masked", "trl")
TRAINERS = ("hf", "trl")


def run(manager, student, data, out, **settings):
    defaults = {"epochs": 2, "per_device_train_batch_size": 4, "formatter": "special-tokens", "learning_rate": 1e-3}
    return train(TrainSettings(str(student), (data,), out, **{**defaults, **settings}), manager)


def losses(out) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("labeler", LABELERS)
def test_trainers_and_accumulation_agree_step_by_step(manager, bloom, article, tmp_path, labeler):
    """A permanent invariant: hf, trl and batch 2 × accumulation 2 give the same losses."""
    found = {}
    for trainer in TRAINERS:
        for batch, accumulation in ((4, 1), (2, 2)):
            out = tmp_path / f"{trainer}-{batch}"
            run(
                manager, bloom, article, out, labeler=labeler, trainer=trainer, epochs=3,
                per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            )  # fmt: skip
            found[trainer, batch] = losses(out)
    first = found["hf", 4]
    assert len(first) == 6 and first[-1] < first[0]
    for key, other in found.items():
        assert other == pytest.approx(first, abs=1e-5), key


# Each pair of labeler, trainer and format is in one row at least.
PAIRWISE = [
    ("copy", "hf", "special-tokens"),
    ("copy", "trl", "chat-template"),
    ("masked", "hf", "chat-template"),
    ("masked", "trl", "special-tokens"),
    ("trl", "hf", "special-tokens"),
    ("trl", "trl", "chat-template"),
]


@pytest.mark.parametrize(("labeler", "trainer", "formatter"), PAIRWISE)
def test_any_labeler_works_with_any_trainer_and_format(manager, bloom, article, tmp_path, labeler, trainer, formatter):
    report = run(manager, bloom, article, tmp_path / "run", labeler=labeler, trainer=trainer, formatter=formatter)
    assert (report.rows, report.trained_rows, report.skipped_rows) == (5, 5, 0)
    assert report.steps == 4 and math.isfinite(report.loss)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run/model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/model")
    stop = saved.generation_config.eos_token_id
    assert tokenizer.convert_ids_to_tokens(stop) == ("</s>" if formatter == "special-tokens" else "<|im_end|>")
    assert saved.generation_config.pad_token_id not in (None, stop)
    assert tokenizer.pad_token_id == saved.generation_config.pad_token_id
    assert tokenizer.chat_template


def test_the_run_folder_is_complete(manager, bloom, article, tmp_path):
    with article.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n")
    out = tmp_path / "run"
    report = run(manager, bloom, article, out)
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["settings"]["learning-rate"] == {"value": 1e-3, "origin": "default"}
    assert manifest["plugins"]["labeler"]["name"] == "masked"
    assert manifest["versions"]["torch"] == torch.__version__
    assert len(manifest["data"][0]["sha256"]) == 64
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    where = f"{article}:6"
    assert skipped == [{"id": where, "source": where, "reason": "no assistant message", "code": "no-answer"}]
    assert (report.trained_rows, report.skipped_rows) == (5, 1)
    assert len(losses(out)) == report.steps
    assert "| base |" in (out / "README.md").read_text()
    parts = {"run.json", "metrics.jsonl", "skipped.jsonl", "model", "README.md", "report.html"}
    assert {path.name for path in out.iterdir()} == parts


def test_the_table_is_grown_when_needed_and_never_shrunk(manager, article, tmp_path):
    model, tokenizer = tiny_bloom(spare_rows=20)
    roomy = save_student(model, tokenizer, tmp_path / "roomy")
    rows = model.get_input_embeddings().weight.shape[0]
    run(manager, roomy, article, tmp_path / "a", formatter="chat-template")  # adds two tokens
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a/model").get_input_embeddings().weight.shape[0] == rows

    model, tokenizer = tiny_bloom(spare_rows=0)
    tight = save_student(model, tokenizer, tmp_path / "tight")
    run(manager, tight, article, tmp_path / "b", formatter="chat-template")
    grown = AutoModelForCausalLM.from_pretrained(tmp_path / "b/model").get_input_embeddings().weight.shape[0]
    assert grown == len(tokenizer) + 2


def test_a_student_with_one_special_token_for_everything(manager, article, tmp_path):
    """GPT-2's way: bos, eos and unk are one, and there is no pad."""
    tokenizer = byte_bpe(dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"))
    student = save_student(tiny_llama(tokenizer), tokenizer, tmp_path / "student")
    run(manager, student, article, tmp_path / "run")
    saved = AutoTokenizer.from_pretrained(tmp_path / "run/model")
    assert saved.eos_token == "<|endoftext|>" and saved.pad_token == "<|pad|>"


def test_a_dry_run_loads_no_weights_and_writes_nothing(manager, bloom, article, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.training.student.load_model", lambda ref: pytest.fail("weights loaded"))
    settings = TrainSettings(str(bloom), (article,), tmp_path / "run", per_device_train_batch_size=2, epochs=2)
    report = train(settings, manager, dry_run=True)
    assert report.steps == 6 and report.loss is None and report.trained_tokens > 0
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_is_an_error_before_the_model_loads(manager, bloom, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.training.student.load_model", lambda ref: pytest.fail("weights loaded"))
    data = tmp_path / "data.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]}\n')
    with pytest.raises(DataError, match=r"no row can be trained: .*data.jsonl:1: message 1: the answer is empty"):
        run(manager, bloom, data, tmp_path / "run")


def test_a_finished_run_and_a_strangers_folder_are_left_alone(manager, bloom, article, tmp_path):
    out = tmp_path / "run"
    run(manager, bloom, article, out)
    with pytest.raises(UsageError, match="already holds a finished run"):
        run(manager, bloom, article, out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run"):
        run(manager, bloom, article, other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_loss_that_is_no_number_stops_and_publishes_nothing(manager, article, tmp_path):
    model, tokenizer = tiny_bloom()
    torch.nn.init.constant_(model.transformer.h[0].mlp.dense_h_to_4h.weight, float("nan"))
    student = save_student(model, tokenizer, tmp_path / "student")
    for trainer in TRAINERS:
        with pytest.raises(DistillError, match="the loss is nan at step 1"):
            run(manager, student, article, tmp_path / trainer, trainer=trainer)
        assert not (tmp_path / trainer / "model").exists()


@pytest.mark.parametrize(
    ("options", "complaint", "hint"),
    [
        ({"warmup_stps": "1"}, "unknown option of trainer '(hf|trl)': 'warmup_stps'", "warmup_steps"),
        ({"num_train_epochs": "1"}, "num_train_epochs is set by --epochs", None),
        ({"optim": "nonsense"}, "the trainer refuses its settings", None),
        ({"report_to": "kubeflow"}, "report_to=kubeflow: kubeflow is not installed", "pip install kubeflow"),
        ({"report_to": "comet_ml"}, "report_to=comet_ml: comet_ml is not installed", "pip install comet_ml"),
        ({"use_liger_kernel": "true"}, "use_liger_kernel: liger-kernel is not installed", "pip install liger-kernel"),
        ({"optim": "adamw_8bit"}, "optim=adamw_8bit: bitsandbytes is not installed", "pip install bitsandbytes"),
        ({"optim": "lomo"}, "optim=lomo: lomo-optim is not installed", "pip install lomo-optim"),
        ({"push_to_hub": "true"}, "push_to_hub cannot be set: .*`distill export RUN --to hub", "leave -T push_to_hub"),
        ({"deepspeed": "x.json"}, "deepspeed: deepspeed is not installed", "pip install deepspeed"),
        ({"fsdp": "full_shard"}, "fsdp needs several processes", "torchrun"),
        ({"load_in_4bit": "true"}, "load_in_4bit is set by --qlora", None),
    ],
)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainer_options_are_checked(manager, trainer, options, complaint, hint):
    """At one place for both trainers, when the trainer is built: before anything is loaded or made."""
    with pytest.raises(UsageError, match=complaint) as caught:
        manager.trainers.build(trainer, options)
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize(
    ("base", "asked", "lora"),
    [("bfloat16", "auto", None), ("float16", "auto", LoraSettings(r=2)), ("bfloat16", "float32", None)],
)
def test_a_student_is_saved_in_the_precision_of_its_base(manager, bloom, article, tmp_path, base, asked, lora):
    model = AutoModelForCausalLM.from_pretrained(bloom, dtype=getattr(torch, base))
    student = save_student(model, AutoTokenizer.from_pretrained(bloom), tmp_path / "student")
    expected = base if asked == "auto" else asked
    dry = train(
        TrainSettings(str(student), (article,), tmp_path / "run", dtype=asked, lora=lora), manager, dry_run=True
    )
    report = run(manager, student, article, tmp_path / "run", dtype=asked, lora=lora, epochs=1)
    assert dry.saved_in == report.saved_in == expected and report.computed_in == dry.computed_in
    saved = load_file(tmp_path / "run/model/model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {getattr(torch, expected)}
    assert json.loads((tmp_path / "run/model/config.json").read_text())["dtype"] == expected
    assert json.loads((tmp_path / "run/run.json").read_text())["report"]["saved_in"] == expected


def test_float16_that_is_too_small_for_a_weight(bloom):
    model = AutoModelForCausalLM.from_pretrained(bloom)
    model.get_input_embeddings().weight.data[0, 0] = 70000.0
    assert cast_weights(model, "float16") == "bfloat16" and model.dtype == torch.bfloat16


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainer_options_reach_the_trainer(manager, bloom, article, tmp_path, trainer):
    report = run(manager, bloom, article, tmp_path / "run", trainer=trainer, trainer_options={"max_steps": "1"})
    assert report.steps == 1


def test_a_trainer_that_returns_nonsense_is_blamed(bloom, article, tmp_path):
    class Plugin:
        @hookimpl
        def register_trainers(self):
            return [TrainerSpec("lazy", "does nothing", lambda options: self)]

        def train(self, job, on_log):
            return None

    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    manager.load(PluginRecord("lazy", "test"), Plugin)
    with pytest.raises(PluginError, match="trainer 'lazy' returned NoneType"):
        run(manager, bloom, article, tmp_path / "run", trainer="lazy")


def test_observers_hear_of_a_finished_run(bloom, article, tmp_path):
    heard = []

    class Plugin:
        @hookimpl
        def training_finished(self, run, result):
            heard.append((run, result))

    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    manager.load(PluginRecord("listener", "test"), Plugin)
    run(manager, bloom, article, tmp_path / "run")
    assert heard[0][0] == tmp_path / "run" and isinstance(heard[0][1], TrainResult)


def test_missing_weights_are_said_aloud(manager, article, tmp_path, caplog):
    from safetensors.torch import load_file, save_file

    folder = save_student(*tiny_bloom(), tmp_path / "student")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "dense_h_to_4h.weight" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    run(manager, folder, article, tmp_path / "run")
    assert "lacks 1 weights, which start at random" in caplog.text
