"""LoRA: the right layers on every architecture, new tokens trained too, and a student that plain transformers loads."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill import DistillError, UsageError
from distill.cli.main import main
from distill.testing import bloom_tokenizer, byte_bpe, save_student, tiny_bloom, tiny_llama
from distill.training import LoraSettings, TrainSettings, train
from distill.training.lora import add_adapter, merge_adapter


def tiny_gpt2(tokenizer):
    """A random GPT-2, whose linear layers are `Conv1D` with weights the other way round."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, **ids)
    )


MODELS = {
    "bloom": lambda: tiny_bloom()[0],
    "llama": lambda: tiny_llama(bloom_tokenizer()),  # its output head is not its embedding table
    "gpt2": lambda: tiny_gpt2(bloom_tokenizer()),
}


def run(manager, student, data, out, **settings):
    defaults = {"epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "lora": LoraSettings(r=4)}
    return train(TrainSettings(str(student), (data,), out, **{**defaults, **settings}), manager)


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_but_the_head_gets_an_adapter(name):
    model = MODELS[name]()
    linear = {at for at, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    adapted = add_adapter(model, LoraSettings(r=4), ())
    found = {
        at.removeprefix("base_model.model.") for at, module in adapted.named_modules() if hasattr(module, "lora_A")
    }
    assert found == linear - {"lm_head"} and len(found) >= 8
    trained = {at for at, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained and all(".lora_" in at for at in trained)


@pytest.mark.parametrize("name", MODELS)
def test_merged_it_says_what_it_said_with_its_adapters(name, tmp_path):
    model = MODELS[name]()
    last = model.get_input_embeddings().weight.shape[0] - 1
    adapted = add_adapter(model, LoraSettings(r=4), (last,))
    optimizer = torch.optim.AdamW([weight for weight in adapted.parameters() if weight.requires_grad], 1e-2)
    tokens = torch.tensor([[5, 6, last, 7, 8, last]])
    for _ in range(3):
        adapted(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    with torch.no_grad():
        said = adapted(input_ids=tokens).logits
        merge_adapter(adapted).save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.allclose(loaded(input_ids=tokens).logits, said, atol=1e-5)


@pytest.mark.parametrize("trainer", ["hf", "trl"])
@pytest.mark.parametrize("name", MODELS)
def test_a_student_with_new_tokens(manager, article, tmp_path, name, trainer):
    """ChatML's markers are new to it: their rows are trained, in the table and in the head, and no other row is."""
    student = save_student(MODELS[name](), bloom_tokenizer(), tmp_path / "student")
    out = tmp_path / "run"
    report = run(manager, student, article, out, trainer=trainer)
    assert report.trained_rows == 5 and {path.name for path in (out / "adapter").iterdir()} >= {"adapter_config.json"}
    before = AutoModelForCausalLM.from_pretrained(student)
    after = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    known = len(AutoTokenizer.from_pretrained(student))
    assert len(tokenizer) == known + 2
    for table in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = (getattr(model, table)().weight for model in (after, before))
        assert torch.equal(ours[:known], theirs[:known])
    assert len(ours) == max(known + 2, len(theirs))
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    embedding = after.get_input_embeddings().weight[start]
    fresh = untrained_row(manager, student, article, tmp_path, trainer, start)
    assert not torch.equal(embedding, fresh), "the marker's row was trained"
    layer = "h.0.mlp" if name != "llama" else "layers.0.mlp"
    changed = [
        at for at, weight in after.named_parameters() if not torch.equal(weight, before.state_dict().get(at, weight))
    ]
    assert any(layer in at for at in changed)


def untrained_row(manager, student, article, tmp_path, trainer, row):
    """The marker's row before the first step: that of a training at learning rate 0."""
    run(manager, student, article, tmp_path / "still", trainer=trainer, epochs=1, learning_rate=0.0)
    return AutoModelForCausalLM.from_pretrained(tmp_path / "still/model").get_input_embeddings().weight[row]


def test_only_the_named_layers(manager, bloom, article, tmp_path):
    run(manager, bloom, article, tmp_path / "run", lora=LoraSettings(r=2, target_modules=("query_key_value",)))
    weights = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert weights and all("query_key_value" in name or "token_adapter" in name for name in weights)
    assert all(min(weight.shape) == 2 for name, weight in weights.items() if "lora_" in name)
    with pytest.raises(UsageError, match="--lora-targets") as caught:
        run(manager, bloom, article, tmp_path / "other", lora=LoraSettings(target_modules=("q_proj",)))
    assert "query_key_value" in caught.value.hint


def test_the_command_line(bloom, article, tmp_path, capfd):
    out = tmp_path / "run"
    words = ["train", str(article), "--student", str(bloom), "--out", str(out), "--lora-rank", "2", "--epochs", "1"]
    assert main([*words, "--lora", "--lora-alpha", "8", "--lora-targets", "dense, query_key_value"]) == 0
    found = json.loads((out / "run.json").read_text())["settings"]
    shape = {"lora-rank": 2, "lora-alpha": 8, "lora-dropout": 0.0, "lora-targets": ["dense", "query_key_value"]}
    for name, value in {"lora": True, **shape, "qlora": False}.items():
        assert found[name] == {"value": value, "origin": "command line"}
    assert "LoRA of rank 2, merged" in (out / "README.md").read_text()
    capfd.readouterr()
    assert main(["generate", str(out), "hi", "--max-tokens", "2"]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_qlora_without_a_gpu_is_refused_before_anything_is_written(manager, bloom, article, tmp_path):
    with pytest.raises(DistillError, match="--qlora needs a GPU"):
        run(manager, bloom, article, tmp_path / "run", lora=LoraSettings(quantize=True))
    assert not (tmp_path / "run").exists()


def test_a_student_that_speaks_the_format_already(manager, article, tmp_path):
    """No new token: nothing but adapters is trained."""
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
    tokenizer = byte_bpe(tokens)
    student = save_student(tiny_llama(tokenizer), tokenizer, tmp_path / "student")
    run(manager, student, article, tmp_path / "run")
    weights = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert all("lora_" in name for name in weights)


def tied_llama(tokenizer):
    """A random Llama whose LM head is its embedding table."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes))


@pytest.mark.parametrize(
    "targets", [("lm_head",), ("embed_tokens",), ("embed_tokens", "lm_head", "q_proj")], ids=" ".join
)
def test_adapters_on_a_tied_table_are_saved_untied(manager, article, tmp_path, targets):
    """Merged into the one table, they would change the other end too."""
    tokenizer = bloom_tokenizer()
    student = save_student(tied_llama(tokenizer), tokenizer, tmp_path / "student")
    out = tmp_path / "run"
    run(
        manager, student, article, out, lora=LoraSettings(r=4, target_modules=targets), formatter="special-tokens",
        learning_rate=5e-2,
    )  # fmt: skip
    saved = load_file(out / "model/model.safetensors")
    assert not torch.equal(saved["lm_head.weight"], saved["model.embed_tokens.weight"])
    assert json.loads((out / "model/config.json").read_text())["tie_word_embeddings"] is False


def test_a_merged_student_that_is_another_is_not_saved(manager, article, tmp_path, monkeypatch):
    from distill.training import student as module

    merge = module.merge_adapter

    def wrongly(model):
        merged = merge(model)
        with torch.no_grad():
            merged.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        return merged

    monkeypatch.setattr(module, "merge_adapter", wrongly)
    student = save_student(tiny_llama(bloom_tokenizer()), bloom_tokenizer(), tmp_path / "student")
    with pytest.raises(DistillError, match="is not the one that was trained: its logits differ by") as error:
        run(manager, student, article, tmp_path / "run", formatter="special-tokens")
    assert "run/adapter" in error.value.hint and (tmp_path / "run/adapter").is_dir()
    assert not (tmp_path / "run/model").exists()
