"""What is written is what other frameworks read: checked with `datasets`, and with TRL's own trainer."""

from __future__ import annotations

import json

import distill_pretokenized
import pytest
from distill_pretokenized import Pretokenized, PretokenizedOptions

import distill
from distill.testing import check_trainer, load_plugin, tiny_job


@pytest.fixture
def job(tmp_path):
    return tiny_job(tmp_path / "run" / "checkpoints")


def expected(job):
    return [
        {"input_ids": list(row.input_ids), "attention_mask": [1] * len(row.input_ids), "labels": list(row.labels)}
        for row in job.examples
    ]


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_it_keeps_the_contract_of_trainers(format):
    check_trainer(lambda: Pretokenized(PretokenizedOptions(format)), trains=False)


def test_it_registers_its_name():
    spec = load_plugin(distill_pretokenized).trainers.get("pretokenized")
    assert isinstance(spec.build(spec.options()), distill.Trainer)


def test_jsonl_holds_the_columns_of_axolotl_and_nothing_else(job, capsys):
    result = Pretokenized(PretokenizedOptions()).train(job, lambda row: None)
    assert result == distill.TrainResult(steps=0, loss=None)
    path = job.output_dir / "tokenized.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == expected(job)
    assert [file.name for file in job.output_dir.iterdir()] == ["tokenized.jsonl"]
    assert capsys.readouterr().err == f"pretokenized: 4 rows in {path}\n"


def test_arrow_is_a_dataset_with_a_train_split(job):
    from datasets import load_from_disk

    Pretokenized(PretokenizedOptions("arrow")).train(job, lambda row: None)
    loaded = load_from_disk(str(job.output_dir / "tokenized"))
    assert loaded["train"].to_list() == expected(job)


def test_trl_trains_on_the_rows_as_they_are(job, tmp_path):
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    Pretokenized(PretokenizedOptions()).train(job, lambda row: None)
    rows = load_dataset(
        "json", data_files=str(job.output_dir / "tokenized.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trl"), max_length=None, report_to="none", per_device_train_batch_size=4, use_cpu=True
    )
    trainer = SFTTrainer(model=job.model, args=arguments, train_dataset=rows, processing_class=job.tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    got = sorted(
        [token for token, there in zip(labels, mask, strict=True) if there]
        for labels, mask in zip(batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True)
    )
    assert got == sorted(row["labels"] for row in expected(job))
