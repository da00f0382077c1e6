"""Shared prefixes: the losses and gradients of padded rows, in a fraction of the tokens; who cannot is padded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import ARCHITECTURES, tiny
from test_batching import job
from test_packing import llama  # noqa: F401 - a fixture
from test_resume import Killed, assert_same, rows
from test_resume import run as run_training

from distill import IGNORE_INDEX, Example, UsageError, data_loader, fast_training
from distill.training import LoraSettings, TrainSettings, train
from distill.training.batching import LengthBatchSampler
from distill.training.packing import without_cache
from distill.training.shared_prefix import (
    SharedPrefixCollator,
    group_by_prefix,
    lay_on_prefix,
    verify_shared_prefix,
)

FALL_BACK = {
    "bloom": "takes no position_ids",
    "mpt": "takes no position_ids",
    "mamba": "has layers of the kind",
}


def chats(prompts=3, answers=4, prompt=40, own=9, turns=False) -> list[Example]:
    """Several answers to each prompt, of many lengths; with `turns`, two trained parts in each."""
    random = torch.Generator().manual_seed(0)

    def tokens(count):
        return torch.randint(3, 96, (count,), generator=random).tolist()

    made = []
    for _ in range(prompts):
        asked = tokens(prompt)
        for n in range(answers):
            answer = tokens(own + n)
            labels = [IGNORE_INDEX] * prompt + answer
            ids = asked + answer
            if turns:
                more = tokens(6)
                ids, labels = ids + more, [*labels, *[IGNORE_INDEX] * 3, *more[3:]]
            made.append(Example(ids, labels, str(len(made))))
    return made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_who_shares_and_who_does_not(name):
    model = tiny(name, **ARCHITECTURES[name])
    reason = verify_shared_prefix(model, 20)
    assert model.training and not any(p.grad is not None for p in model.parameters())
    if name in FALL_BACK:
        assert FALL_BACK[name] in reason
    elif name in ("llama", "qwen3", "gpt2"):
        assert reason is None


@pytest.mark.parametrize("turns", [False, True], ids=["one turn", "two turns"])
@pytest.mark.parametrize("how", ["eager", "sdpa", "lora", "checkpointing"])
def test_loss_and_all_gradients_of_a_step_are_those_of_padding(how, turns):
    examples = chats(turns=turns)
    padded = job(examples, per_device_train_batch_size=4)
    groups = group_by_prefix(examples, 64)
    assert [len(group.rows) for group in groups] == [4, 4, 4] and groups[0].shared == 39
    results = []
    for shared in (False, True):
        model = tiny("llama")
        if how == "lora":
            peft = pytest.importorskip("peft")
            model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
        elif how == "checkpointing":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.set_attn_implementation(how)
        one = replace(padded, prefix_groups=groups)
        if shared:
            assert verify_shared_prefix(model, 80) is None
            one = replace(one, collate=SharedPrefixCollator.for_model(one.collate, model))
        losses, tokens = [], 0
        with without_cache(model), fast_training(model) as active:
            assert active.supervised_head
            for batch in data_loader(one):
                tokens += batch["input_ids"].numel()
                loss = model(**batch, num_items_in_batch=100).loss
                loss.backward()
                losses.append(loss.item())
        results.append((losses, [p.grad for p in model.parameters() if p.grad is not None], tokens))
    torch.testing.assert_close(results[1][:2], results[0][:2], rtol=1e-5, atol=1e-5)
    assert len(results[0][0]) == 3 and results[1][2] < 0.6 * results[0][2]


def test_every_token_is_laid_once_and_sees_its_own_row():
    laid = lay_on_prefix([([1, 2, 3, 4], [-100, -100, -100, 4]), ([1, 2, 9, 8, 7], [-100, -100, -100, 8, 7])], 2)
    assert laid["input_ids"].tolist() == [[1, 2, 3, 4, 9, 8, 7]]
    assert laid["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert laid["labels"].tolist() == [[-100, -100, -100, 4, -100, 8, 7]]
    seen = [[n for n, on in enumerate(line) if on] for line in laid["attention_mask"][0, 0].tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 4, 5], [0, 1, 4, 5, 6]]


def test_leaks_dropout_and_windows_are_told():
    model = tiny("llama")
    forward = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda x: forward(x) + x.mean(1, keepdim=True)
    assert verify_shared_prefix(model, 20) == "attends across rows of a prefix"
    dropping = tiny("llama")
    dropping.config.attention_dropout = 0.1
    assert "dropout" in verify_shared_prefix(dropping, 20)
    windowed = tiny("mistral", sliding_window=16)
    assert verify_shared_prefix(windowed, 40) == "attends in a sliding window of 16 tokens"
    assert verify_shared_prefix(windowed, 16) is None


def test_only_what_pays_is_grouped():
    random = torch.Generator().manual_seed(1)
    alone = [torch.randint(3, 96, (40,), generator=random).tolist() for _ in range(6)]
    singles = [Example(ids, [IGNORE_INDEX] * 30 + ids[30:], "") for ids in alone]
    assert group_by_prefix(singles, 64) == []
    short = [Example([5, 6, *ids], [IGNORE_INDEX] * 3 + ids[1:], "") for ids in alone]
    assert group_by_prefix(short, 64) == []
    system = torch.randint(3, 96, (200,), generator=random).tolist()
    long = [Example(system + ids, [IGNORE_INDEX] * 230 + ids[30:], "") for ids in alone]
    (group,) = group_by_prefix(long, 512)
    assert (group.rows, group.shared) == (tuple(range(6)), 200)
    mixed = group_by_prefix([*long, *chats()], 512)
    assert sorted(len(group.rows) for group in mixed) == [4, 4, 4, 6]


@pytest.mark.parametrize("tokens", [None, 150])
def test_every_row_comes_once_and_groups_stay_together_in_a_random_order(tokens):
    examples = [*chats(), *chats(prompts=8, answers=1)]
    groups = group_by_prefix(examples, 64)
    lengths = [len(one.input_ids) for one in examples]
    sampler = LengthBatchSampler(lengths, batch_size=4, batch_tokens=tokens, epochs=3, groups=groups)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = [batch for batch in sampler if batch[0] >= 0]
        assert sorted(row for batch in batches for row in batch) == list(range(len(examples)))
        for group in groups:
            parts = [batch for batch in batches if set(batch) & set(group.rows)]
            assert tokens is None or all(set(batch) <= set(group.rows) for batch in parts)
        seen.append(batches)
    assert seen[0] != seen[1] != seen[2]


def data_with_prompts(path: Path) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        for prompt in ("Tell me a long story about " + "the sea and the sun and " * 6, "List " + "all the words " * 12):
            for n in range(4):
                chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"{n} and {n + 1}."}]
                file.write(json.dumps({"messages": chat}) + "\n")
    return path


HOW = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize("trainer", ["hf", "trl"])
def test_a_training_has_the_losses_of_padded_rows(manager, llama, tmp_path, trainer, monkeypatch):  # noqa: F811
    data, notes = data_with_prompts(tmp_path / "data.jsonl"), []
    run_training(
        manager, llama, data, tmp_path / "shared", shared_prefix="auto", trainer=trainer, note=notes.append, **HOW
    )
    assert "shared prefixes: 8 of 8 rows, on 2 prefixes" in notes
    # The same batches, padded.
    monkeypatch.setattr("distill.training.shared_prefix._tree_cost", lambda length, width: float("inf"))
    monkeypatch.setattr("distill.training.shared_prefix._pays", lambda *args: True)
    run_training(manager, llama, data, tmp_path / "padded", shared_prefix="auto", trainer=trainer, **HOW)
    ours, theirs = ([row["loss"] for row in rows(tmp_path / name)] for name in ("shared", "padded"))
    assert len(ours) == 4 and ours == pytest.approx(theirs, abs=1e-5)


def test_the_dry_run_says_what_it_estimates(manager, llama, tmp_path):  # noqa: F811
    data, notes = data_with_prompts(tmp_path / "data.jsonl"), []
    settings = TrainSettings(str(llama), (data,), tmp_path / "run", shared_prefix="auto")
    train(settings, manager, dry_run=True, note=notes.append)
    assert any("shared prefixes are verified" in note and "estimated for padded rows" in note for note in notes)


def test_it_is_resumed_exactly(manager, llama, tmp_path):  # noqa: F811
    how = {"shared_prefix": "auto", "batch_tokens": 400, "epochs": 3, "lora": LoraSettings(r=4)}
    data = data_with_prompts(tmp_path / "data.jsonl")
    run_training(manager, llama, data, tmp_path / "whole", **how)
    with pytest.raises(Killed):
        run_training(manager, llama, data, tmp_path / "run", kill_after=2, save_steps=1, **how)
    run_training(manager, llama, data, tmp_path / "run", resume=True, **how)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_bloom_is_padded_and_told_why(manager, bloom, tmp_path):
    data, notes = data_with_prompts(tmp_path / "data.jsonl"), []
    run_training(manager, bloom, data, tmp_path / "run", shared_prefix="auto", epochs=1, note=notes.append)
    (warning,) = (note for note in notes if "prefixes are not shared" in note)
    assert warning.endswith("BloomForCausalLM takes no position_ids")


def test_packing_is_another_way(tmp_path):
    from distill.settings import settings_from
    from distill.training import TrainSettings

    words = {"student": "bloom", "out": tmp_path, "packing": True, "shared_prefix": "auto"}
    with pytest.raises(UsageError, match="exclude each other"):
        settings_from(TrainSettings, words, data=(tmp_path,))
