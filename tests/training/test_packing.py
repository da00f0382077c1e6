"""Packing: the same steps, losses and gradients as padding; a student that attends across rows is not packed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ARCHITECTURES, tiny
from test_batching import job, log_normal, write
from test_resume import Killed, assert_same, run

from distill import IGNORE_INDEX, Example, UsageError, data_loader, fast_training, pad_batch
from distill.dataset.table import Examples
from distill.training import LoraSettings, TrainSettings, train
from distill.training.estimate import Batch, largest_batch
from distill.training.kernels import row_attention
from distill.training.kernels.row_attention import NAME
from distill.training.packing import PackingCollator, pack, packed_attention, verify_packing, without_cache

SEE_ACROSS = {"bloom", "mpt", "mamba", "opt", "falcon"}


def pad_left(rows, pad):
    """As a labeler's own collator may pad."""
    longest = max(len(row["input_ids"]) for row in rows)
    keys = {"input_ids": pad, "attention_mask": 0, "labels": IGNORE_INDEX}
    lines = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        key: torch.tensor([[fill] * (longest - len(line[key])) + line[key] for line in lines])
        for key, fill in keys.items()
    }


ROWS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=8)


@settings(deadline=None, max_examples=80)
@given(ROWS, st.sampled_from([pad_batch, pad_left]))
def test_every_token_lies_there_once_and_positions_restart(rows, pad):
    rows = [
        {"input_ids": [token for token, _ in row], "labels": [t if counts else IGNORE_INDEX for t, counts in row]}
        for row in rows
    ]
    packed = PackingCollator(lambda rows: pad(rows, 0))(rows)
    assert packed.keys() == {"input_ids", "position_ids", "labels"}
    ids, positions, labels = (packed[key].squeeze(0).tolist() for key in ("input_ids", "position_ids", "labels"))
    assert ids == [token for row in rows for token in row["input_ids"]]
    assert positions == [n for row in rows for n in range(len(row["input_ids"]))]
    assert labels == [label for row in rows for label in [IGNORE_INDEX, *row["labels"][1:]]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_who_packs_and_who_does_not(name):
    """Asked of the model, with packs that are longer than its last position."""
    model = tiny(name, **ARCHITECTURES[name])
    reason = verify_packing(model, longest_pack=90)
    assert model.training and not any(p.grad is not None for p in model.parameters())
    if name in SEE_ACROSS:
        assert reason.startswith("attends across rows")
        assert ("it takes no position_ids" in reason) == (name in ("bloom", "mpt", "mamba"))
    else:
        assert reason is None


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - SEE_ACROSS))
def test_rows_attend_by_themselves_with_the_same_result(name):
    model = tiny(name, **ARCHITECTURES[name])
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    ids = torch.randint(4, 60, (4, 24), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([24, 3, 9, 1])  # the longest is beyond some models' window of attention
    mask = (torch.arange(24) < lengths[:, None]).long()
    packed = pack({"input_ids": ids, "attention_mask": mask, "labels": ids})
    padded = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORE_INDEX)}
    model.eval()
    with without_cache(model):
        plain, wanted = model(**padded).loss.item(), model(**packed).loss.item()
        before = model.config.get_text_config()._attn_implementation
        with packed_attention(model) as by_row:
            assert model(**packed).loss.item() == pytest.approx(wanted, rel=1e-5)
            assert model(**padded).loss.item() == pytest.approx(plain, rel=1e-5)
            saved = model.config.to_dict()
        assert model.config.get_text_config()._attn_implementation == before and NAME not in json.dumps(saved)
    assert by_row == model._supports_sdpa


def test_rows_that_do_not_attend_by_themselves_keep_the_mask(monkeypatch):
    model = tiny("llama")
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr(row_attention._Pack, "holds", lambda self, tokens: True)  # the rows are forgotten
    monkeypatch.setattr(row_attention._Pack, "look", lambda self, *_: setattr(self, "lengths", [34]))
    with packed_attention(model) as by_row:
        assert not by_row and model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_planted_leak_is_caught(dtype, monkeypatch):
    """A model that turns by positions, but whose mask forgets them, as that of gpt_oss does."""
    from transformers.models.llama import modeling_llama

    model, mask = tiny("llama").to(dtype), modeling_llama.create_causal_mask
    assert verify_packing(model, 40) is None
    monkeypatch.setattr(
        modeling_llama, "create_causal_mask", lambda *args, **words: mask(*args, **{**words, "position_ids": None})
    )
    with torch.no_grad():
        assert verify_packing(model, 40).startswith("attends across rows")


def test_a_loss_of_its_own_and_a_failure_are_told():
    model = tiny("llama")
    model.loss_function = lambda logits, labels, vocab_size, **kwargs: logits.square().mean(1).sum()
    assert verify_packing(model, 40).startswith("gives another loss for packed rows")

    def fails(*args, **kwargs):
        raise ValueError("no such thing\nmore")

    model.model.forward = fails
    assert verify_packing(model, 40) == "fails on packed rows: no such thing"


def test_absolute_positions_that_do_not_restart_are_caught():
    model = tiny("gpt2")
    forward = model.transformer.wpe.forward
    model.transformer.wpe.forward = lambda ids: forward(torch.arange(ids.shape[-1])[None])
    assert verify_packing(model, 40).startswith("gives other logits for packed rows")


def test_the_random_state_is_left_as_it_was():
    model, state = tiny("llama"), torch.get_rng_state()
    verify_packing(model, 40)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("how", ["eager", "sdpa", "checkpointing", "lora"])
def test_loss_and_gradients_of_a_step_are_those_of_padding(how):
    """In batches by tokens, supervised positions only."""
    lengths = log_normal(8)
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 96, (min(n, 60),), generator=random).tolist() for n in lengths]
    examples = [
        Example(row, [*row[:1], *[IGNORE_INDEX] * (len(row) // 2), *row[1 + len(row) // 2 :]], "") for row in rows
    ]
    padded = job(examples, batch_tokens=200)
    results = []
    for one in (padded, replace(padded, collate=PackingCollator(padded.collate))):
        model = tiny("llama")
        if how == "lora":
            peft = pytest.importorskip("peft")
            model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
        elif how == "checkpointing":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.set_attn_implementation(how)
        assert verify_packing(model, 200) is None
        with without_cache(model), fast_training(model) as active:
            assert active.supervised_head
            losses = []
            for batch in data_loader(one):
                loss = model(**batch).loss
                loss.backward()
                losses.append(loss.item())
        results.append((losses, [p.grad for p in model.parameters() if p.grad is not None]))
    assert len(results[0][0]) > 2
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    """A folder with a tiny random student that packs."""
    from distill.testing import bloom_tokenizer, save_student, tiny_llama

    tokenizer = bloom_tokenizer()
    return save_student(tiny_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "llama")


def logged(out: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


@pytest.mark.parametrize(
    ("trainer", "labeler", "budget"),
    [("hf", "masked", None), ("hf", "trl", 200), ("trl", "copy", 200), ("trl", "trl", None)],
)
def test_a_packed_training_takes_the_steps_of_a_padded_one(manager, llama, tmp_path, trainer, labeler, budget):
    data = write(tmp_path / "data.jsonl", 11)
    padded = TrainSettings(
        str(llama), (data,), tmp_path / "padded", trainer=trainer, labeler=labeler, batch_tokens=budget, epochs=2,
        per_device_train_batch_size=3, gradient_accumulation_steps=2, formatter="special-tokens", learning_rate=1e-3,
    )  # fmt: skip
    notes: list[str] = []
    assert train(padded, manager).packed is None
    assert train(replace(padded, out=tmp_path / "packed", packing=True), manager, note=notes.append).packed
    assert not any("warning" in note for note in notes)
    ours, theirs = logged(tmp_path / "packed"), logged(tmp_path / "padded")
    assert len(ours) > 2 and json.loads((tmp_path / "packed/model/config.json").read_text())["use_cache"] is True
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=1e-5)


def test_bloom_is_padded_and_told_why(manager, bloom, tmp_path):
    data = write(tmp_path / "data.jsonl", 6)
    padded = TrainSettings(str(bloom), (data,), tmp_path / "padded", batch_tokens=200, formatter="special-tokens")
    notes: list[str] = []
    train(padded, manager)
    report = train(replace(padded, out=tmp_path / "packed", packing=True), manager, note=notes.append)
    assert report.packed is False and logged(tmp_path / "packed") == logged(tmp_path / "padded")
    (warning,) = (note for note in notes if "warning" in note)
    assert warning.startswith("warning: rows are padded, not packed: BloomForCausalLM attends across rows")
    assert json.loads((tmp_path / "packed/run.json").read_text())["report"]["packed"] is False


def test_a_packed_training_is_resumed_exactly(manager, llama, article, tmp_path):
    how = {"batch_tokens": 64, "packing": True, "lora": LoraSettings(r=4, dropout=0.1)}
    run(manager, llama, article, tmp_path / "whole", **how)
    with pytest.raises(Killed):
        run(manager, llama, article, tmp_path / "run", kill_after=4, save_steps=1, **how)
    run(manager, llama, article, tmp_path / "run", resume=True, **how)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_the_dry_run_counts_the_largest_pack(manager, llama, tmp_path):
    examples = Examples.of([Example([0] * n, [-100, *range(n - 1)], str(n)) for n in (3, 9, 4, 8)])
    plain = TrainSettings("", (), Path("unused"), per_device_train_batch_size=2, packing=True)
    assert largest_batch(plain, examples) == Batch(1, 17, 15, packed=True)
    assert largest_batch(replace(plain, batch_tokens=18), examples) == Batch(1, 17, 15, packed=True)
    data = write(tmp_path / "data.jsonl", 12)
    padded = TrainSettings(
        str(llama), (data,), tmp_path / "run", formatter="special-tokens", per_device_train_batch_size=3
    )
    before, after = (train(replace(padded, packing=on), manager, dry_run=True) for on in (False, True))
    assert after.steps == before.steps and after.packed is None
    assert 0 < after.estimate.activations == pytest.approx(before.estimate.activations, rel=0.3)


@pytest.mark.parametrize(("trainer", "option"), [("trl", "packing"), ("trl", "padding_free"), ("hf", "packing")])
def test_packing_of_another_kind_is_refused(manager, trainer, option):
    with pytest.raises(UsageError, match=f"{option} is set by --packing"):
        manager.trainers.get(trainer).build({option: "true"})
