"""Soft targets from rows to gradients: through batches, packing, chunks of logits and both trainers."""

from __future__ import annotations

import json

import pytest
import torch
from small_models import tiny
from teacher_logprobs import write_told_rows

from distill import DistillError, SoftTargets, make_plugin_manager
from distill.dataset.collate import PaddingCollator
from distill.dataset.soft_columns import SOFT, SoftCollator
from distill.errors import DataError, PluginError
from distill.models.load import load_tokenizer
from distill.training import LoraSettings, TrainSettings, train
from distill.training.kernels import fast_training, supervised_head
from distill.training.packing import pack
from distill.types import IGNORE_INDEX


@pytest.fixture(scope="module")
def manager():
    return make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


@pytest.fixture
def data(bloom, tmp_path):
    """Five answers with a made-up teacher's log probabilities, of the student's own tokenizer."""
    return write_told_rows(tmp_path / "data.jsonl", load_tokenizer(str(bloom)))


def run(manager, bloom, data, out, loss="soft-labels", **more):
    settings = TrainSettings(
        str(bloom),
        (data,),
        out,
        **{"epochs": 1, "learning_rate": 1e-3, "loss": loss, "per_device_train_batch_size": 2, **more},
    )
    rows = []
    notes: list[str] = []
    train(settings, manager, on_log=rows.append, note=notes.append)
    return [row["loss"] for row in rows if "loss" in row], notes


def test_both_trainers_packing_batching_and_accumulation_agree(manager, bloom, data, tmp_path):
    for loss in ("soft-labels", "chunks"):
        first, notes = run(manager, bloom, data, tmp_path / loss, loss, formatter="special-tokens")
        assert any("exact" in note and "likeliest tokens have" in note for note in notes)
        for n, more in enumerate(
            (
                {"trainer": "trl"},
                {"packing": True},
                {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
            )
        ):
            other, _ = run(manager, bloom, data, tmp_path / f"{loss}{n}", loss, formatter="special-tokens", **more)
            assert other == pytest.approx(first, rel=1e-4), more


def test_another_loss_trains_another_student(manager, bloom, data, tmp_path):
    runs = {
        name: run(manager, bloom, data, tmp_path / name, name, formatter="special-tokens")[0]
        for name in ("cross-entropy", "soft-labels", "chunks")
    }
    assert len({round(losses[-1], 5) for losses in runs.values()}) == 3


@pytest.mark.parametrize("loss", ["soft-labels", "chunks"])
def test_an_adapter_starts_with_the_loss_of_the_whole_student(manager, bloom, data, tmp_path, loss):
    whole, _ = run(manager, bloom, data, tmp_path / "whole", loss)
    adapted, _ = run(manager, bloom, data, tmp_path / "lora", loss, lora=LoraSettings(), epochs=8, learning_rate=1e-2)
    assert adapted[0] == pytest.approx(whole[0], abs=1e-5)  # it changes nothing yet
    assert adapted[-1] < adapted[0] - 0.05


def test_the_target_is_told(manager, bloom, data, tmp_path):
    _, notes = run(manager, bloom, data, tmp_path / "run", formatter="special-tokens")
    assert any("target=unbiased: all 5 rows" in note for note in notes)


def test_data_without_logprobs_are_refused(manager, bloom, article, tmp_path):
    with pytest.raises(DataError, match="no row has them") as refused:
        run(manager, bloom, article, tmp_path / "run", formatter="special-tokens")
    assert "--logprobs 20" in refused.value.hint


def test_damaged_data_are_refused(manager, bloom, data, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[2]["metadata"]["logprobs"], rows[3]["metadata"]["logprobs"] = (
        rows[3]["metadata"]["logprobs"],
        rows[2]["metadata"]["logprobs"],
    )
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="2 × logprobs-other-text"):
        run(manager, bloom, data, tmp_path / "run", formatter="special-tokens")
    allow = ("logprobs-other-text", "few-tokens-aligned")
    losses, _ = run(manager, bloom, data, tmp_path / "other", formatter="special-tokens", allow=allow)
    assert losses


def test_a_trainer_that_forgets_the_loss_is_named(manager, bloom, data, tmp_path, monkeypatch):
    from distill.builtin.trainers import hugging_face

    monkeypatch.setattr(hugging_face, "fast_training", lambda model, loss: fast_training(model))
    with pytest.raises(PluginError, match="did not use the loss"):
        run(manager, bloom, data, tmp_path / "run", formatter="special-tokens")


def soft_rows(rows: int = 3, length: int = 16, k: int = 3, seed: int = 0):
    """Rows with soft targets: exact tokens, chunks of up to three tokens, and some without a teacher."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(rows):
        ids = torch.randint(3, 90, (length,), generator=generator).tolist()
        labels = [IGNORE_INDEX] * 4 + ids[4:]
        kind, size = torch.zeros(length, dtype=torch.int8), torch.zeros(length, dtype=torch.int16)
        at = 4
        while at < length - 1:
            step = int(torch.randint(1, 4, (1,), generator=generator))
            stop = min(at + step, length - 1)
            if torch.rand((), generator=generator) < 0.8:
                kind[at:stop] = 1 if stop - at == 1 else 2
                size[stop - 1] = stop - at
            at = stop
        exact = int((kind == 1).sum())
        logprob = torch.where(size > 0, -torch.rand(length, generator=generator) * 4, float("nan"))
        top = torch.stack(
            [torch.randperm(90, generator=generator)[:k] for _ in range(exact)] or [torch.zeros(0, k)]
        ).int()
        values = torch.randn(exact, k + 2, generator=generator).log_softmax(-1)[:, :k].sort(descending=True).values
        soft = SoftTargets(kind.numpy(), size.numpy(), logprob.float().numpy(), top.numpy(), values.numpy(), True)
        made.append({"input_ids": ids, "labels": labels, "soft": soft})
    return made


@pytest.mark.parametrize("name", ["soft-labels", "chunks"])
@pytest.mark.parametrize("plain", [True, False])
def test_chunks_of_logits_and_packing_make_no_difference(manager, monkeypatch, name, plain):
    """No chunk of the teacher's is cut by a chunk of logits, and each target stays with its token."""
    rows = soft_rows()
    for row in rows:
        object.__setattr__(row["soft"], "plain", plain)
    batch = SoftCollator(PaddingCollator(0))(rows)
    model = tiny("llama", vocab_size=96)

    def gradients(inputs):
        model.zero_grad()
        with fast_training(model, manager.losses.build(name)) as active:
            assert active.supervised_head
            value = model(**inputs, use_cache=False).loss
            value.backward()
        return value.item(), {key: weight.grad.clone() for key, weight in model.named_parameters()}

    value, whole = gradients(batch)
    packed_value, packed = gradients(pack(batch))
    monkeypatch.setattr(supervised_head, "CHUNK_LOGITS", 96 * 3)
    cut_value, cut = gradients(batch)
    assert packed_value == pytest.approx(value, rel=1e-5) and cut_value == pytest.approx(value, rel=1e-5)
    for key, gradient in whole.items():
        torch.testing.assert_close(packed[key], gradient, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(cut[key], gradient, atol=1e-6, rtol=1e-4)


def test_targets_are_at_the_position_before_their_token(manager):
    """What every other tool got wrong once: targets one token late."""
    [row] = soft_rows(rows=1)
    seen = []

    class Watch:
        def sum(self, logits, labels, soft):
            seen.append((labels, soft))
            return logits.sum()

    model = tiny("llama", vocab_size=96)
    with fast_training(model, Watch()):
        model(**SoftCollator(PaddingCollator(0))([row]), use_cache=False)
    labels, soft = seen[-1]
    assert labels.tolist() == row["input_ids"][4:]
    assert soft.kind.tolist() == row["soft"].kind[4:].tolist() and soft.size.tolist() == row["soft"].size[4:].tolist()
    torch.testing.assert_close(soft.ids[soft.kind == 1], torch.tensor(row["soft"].ids))


def test_a_batch_without_gradients_is_not_disturbed_by_targets(manager):
    model = tiny("llama", vocab_size=96)
    batch = SoftCollator(PaddingCollator(0))(soft_rows())
    with fast_training(model, manager.losses.build("soft-labels")), torch.no_grad():
        outputs = model(**batch, use_cache=False)
    assert outputs.logits is not None and SOFT not in outputs


def test_a_model_without_the_head_cannot_have_another_loss(manager):
    model = tiny("llama", vocab_size=96)
    model.loss_function = lambda *args, **kwargs: None
    with (
        pytest.raises(DistillError, match="this loss cannot be used"),
        fast_training(model, manager.losses.build("chunks")),
    ):
        pass


@pytest.mark.parametrize("name", ["soft-labels", "chunks"])
def test_a_process_for_which_no_row_is_left_adds_nothing(manager, name):
    """It gets a row without its labels, and has a gradient of 0."""
    rows = [{**row, "labels": [IGNORE_INDEX] * len(row["labels"])} for row in soft_rows(rows=1)]
    model = tiny("llama", vocab_size=96)
    with fast_training(model, manager.losses.build(name)):
        loss = model(**SoftCollator(PaddingCollator(0))(rows), use_cache=False).loss
        loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_an_interrupted_training_resumes_to_the_same_student(manager, bloom, data, tmp_path, monkeypatch):
    from distill.training.checkpoints import RunCheckpoints

    whole, _ = run(manager, bloom, data, tmp_path / "whole", formatter="special-tokens", epochs=2, save_steps=2)
    told = RunCheckpoints.after_step
    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "after_step", _stop_after(3, told))
        with pytest.raises(KeyboardInterrupt):
            run(manager, bloom, data, tmp_path / "run", formatter="special-tokens", epochs=2, save_steps=2)
    settings = TrainSettings(
        str(bloom), (data,), tmp_path / "run", epochs=2, learning_rate=1e-3, loss="soft-labels", save_steps=2,
        per_device_train_batch_size=2, formatter="special-tokens",
    )  # fmt: skip
    rows = []
    train(settings, manager, resume=True, on_log=rows.append)
    rest = [row["loss"] for row in rows if "loss" in row]
    assert rest == whole[-len(rest) :] and 0 < len(rest) < len(whole)


def _stop_after(last, told):
    def after_step(self, step, **more):
        verdict = told(self, step, **more)
        if step == last:
            raise KeyboardInterrupt
        return verdict

    return after_step
