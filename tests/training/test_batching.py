"""Batches: every row once an epoch, the same steps whatever the number of processes, little padding."""

from __future__ import annotations

import json
import random
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill import IGNORE_INDEX, Example, TrainJob, UsageError, data_loader, pad_batch
from distill.training import TrainSettings, train
from distill.training.batching import LengthBatchSampler

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def log_normal(rows: int, sigma: float = 0.8) -> list[int]:
    """Lengths as chats have them, 100 tokens in the middle."""
    source = random.Random(0)
    return [max(2, round(100 * source.lognormvariate(0, sigma))) for _ in range(rows)]


def deal(lengths, epoch, *, accumulation, processes, **words):
    """The steps of an epoch: each a list of the batches of all processes."""
    dealt = []
    for index in range(processes):
        sampler = LengthBatchSampler(
            lengths,
            gradient_accumulation_steps=accumulation,
            process_index=index,
            num_processes=processes,
            epochs=3,
            **words,
        )
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        dealt.append([batches[n : n + accumulation] for n in range(0, len(batches), accumulation)])
        assert len(dealt[-1]) == sampler.steps
    return [list(chain.from_iterable(step)) for step in zip(*dealt, strict=True)]


def rows_of(steps):
    """The rows that count in each step."""
    return [sorted(row for batch in step for row in batch if row >= 0) for step in steps]


@settings(deadline=None, max_examples=150)
@given(
    LENGTHS,
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(60, 300)),
)
def test_every_row_comes_once_an_epoch(lengths, size, processes, accumulation, epoch, tokens):
    steps = deal(lengths, epoch, batch_size=size, batch_tokens=tokens, accumulation=accumulation, processes=processes)
    assert sorted(chain.from_iterable(rows_of(steps))) == list(range(len(lengths)))
    for batch in chain.from_iterable(steps):
        assert batch
        longest = max(lengths[max(row, ~row)] for row in batch)
        assert len(batch) * longest <= tokens if tokens else len(batch) <= size
        assert all(row >= 0 for row in batch) or len(batch) == 1


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 3), st.integers(0, 2), st.one_of(st.none(), st.integers(60, 200)))
@example([1, 1, 1, 16, 31, 29, 31], 1, 0, 60)
def test_processes_and_accumulation_take_the_same_steps(lengths, size, epoch, tokens):
    words = {"batch_size": size, "batch_tokens": tokens}
    one, two, four = (
        rows_of(deal(lengths, epoch, accumulation=accumulation, processes=processes, **words))
        for accumulation, processes in ((4, 1), (2, 2), (1, 4))
    )
    assert two == four
    if tokens is None or len(lengths) >= 4 * len(two):
        assert one == two


def test_batch_size_and_accumulation_make_the_same_steps():
    lengths = log_normal(37)
    big = rows_of(deal(lengths, 1, batch_size=8, accumulation=1, processes=1))
    assert big == rows_of(deal(lengths, 1, batch_size=2, accumulation=4, processes=1))
    assert big == rows_of(deal(lengths, 1, batch_size=2, accumulation=2, processes=2))
    assert [len(step) for step in big] == [8, 8, 8, 8, 5]


@pytest.mark.parametrize("tokens", [None, 1000])
def test_the_order_is_that_of_seed_and_epoch(tokens):
    def batches(seed, epoch):
        sampler = LengthBatchSampler(log_normal(200), batch_size=8, batch_tokens=tokens, seed=seed, epochs=3)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(0, 1) == batches(0, 1)
    assert len({str(batches(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    assert sorted(map(sorted, batches(0, 0))) != sorted(map(sorted, batches(0, 1)))  # other neighbours, too


def padding(lengths, batches) -> float:
    """Tokens with padding, a real token."""
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) / sum(lengths)


def test_a_token_budget_leaves_little_padding():
    lengths = log_normal(2000)
    grouped = list(LengthBatchSampler(lengths, batch_size=8, batch_tokens=2048))
    assert padding(lengths, grouped) < 1.12
    assert padding(lengths, LengthBatchSampler(lengths, batch_size=8)) > 1.8
    accumulated = LengthBatchSampler(lengths, batch_size=8, gradient_accumulation_steps=8)
    assert padding(lengths, accumulated) < 1.35


def test_the_largest_batch_comes_first():
    lengths = log_normal(300)
    batches = list(LengthBatchSampler(lengths, batch_size=8, batch_tokens=2048))
    sizes = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    assert sizes[0] == max(sizes)


def test_a_row_that_does_not_fit_is_an_error():
    with pytest.raises(UsageError, match="a batch of 50 tokens has no room for the longest example, which has 60"):
        LengthBatchSampler([10, 60, 20], batch_size=8, batch_tokens=50)


def job(examples, **words) -> TrainJob:
    """A job without a model."""
    defaults = {
        "epochs": 2.0, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-3,
        "seed": 0, "output_dir": Path("unused"), "collate": lambda rows: pad_batch(rows, 0),
    }  # fmt: skip
    return TrainJob(model=None, tokenizer=None, examples=examples, **{**defaults, **words})


def test_a_process_without_a_row_gets_one_that_counts_nothing():
    examples = [Example([n, n, n], [IGNORE_INDEX, n, n], str(n)) for n in range(1, 4)]
    batches = [list(data_loader(job(examples), process_index=index, num_processes=2)) for index in (0, 1)]
    assert [len(one) for one in batches] == [2, 2]
    trained = [int((batch["labels"] != IGNORE_INDEX).sum()) for one in batches for batch in one]
    assert sorted(trained) == [0, 2, 2, 2]
    assert all(batch["input_ids"].shape == (1, 3) for one in batches for batch in one)


def test_skipped_batches_are_those_of_the_epoch():
    """As a resumed Trainer skips them."""
    from accelerate import skip_first_batches

    loader = data_loader(job([Example([n], [n], str(n)) for n in range(20)], per_device_train_batch_size=3))
    loader.batch_sampler.set_epoch(1)
    whole = [batch["input_ids"].tolist() for batch in loader]
    assert [batch["input_ids"].tolist() for batch in skip_first_batches(loader, 4)] == whole[4:]


def write(path: Path, rows: int) -> Path:
    """Chats of many lengths."""
    chats = (
        [
            {"role": "user", "content": f"Say {n} " + "again and " * (n % 7)},
            {"role": "assistant", "content": f"{n} " * (1 + n % 5)},
        ]
        for n in range(rows)
    )
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
    return path


@pytest.mark.parametrize("trainer", ["hf", "trl"])
def test_training_by_token_budget_takes_the_steps_it_announced(manager, bloom, tmp_path, trainer):
    data = write(tmp_path / "data.jsonl", 23)
    settings = TrainSettings(
        str(bloom), (data,), tmp_path / "run", trainer=trainer, batch_tokens=200, epochs=1.5, formatter="special-tokens"
    )
    announced = train(settings, manager, dry_run=True)
    report = train(settings, manager)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert report.steps == announced.steps == len(rows) > 5
    assert rows[-1]["max_steps"] == report.steps and rows[-1]["learning_rate"] < rows[0]["learning_rate"] / 4
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_each_trainer_sees_every_row_once_an_epoch_in_the_same_order(manager, bloom, tmp_path, monkeypatch):
    from distill.dataset import collate

    data, seen = write(tmp_path / "data.jsonl", 11), []
    plain = collate.pad_batch

    def watched(rows, pad_token_id):
        seen.append([tuple(row["input_ids"]) for row in rows])
        return plain(rows, pad_token_id)

    monkeypatch.setattr(collate, "pad_batch", watched)
    orders = {}
    for trainer in ("hf", "trl"):
        seen.clear()
        settings = TrainSettings(
            str(bloom), (data,), tmp_path / trainer, trainer=trainer, epochs=2, per_device_train_batch_size=2,
            gradient_accumulation_steps=2, formatter="special-tokens",
        )  # fmt: skip
        train(settings, manager)
        orders[trainer] = list(seen)
    assert orders["hf"] == orders["trl"] and len(orders["hf"]) == 12
    first, second = (list(chain.from_iterable(orders["hf"][half])) for half in (slice(6), slice(6, 12)))
    assert len(set(first)) == 11 and sorted(first) == sorted(second) and first != second


def test_the_trainers_own_sampling_is_used_where_it_is_asked_for(manager, bloom, tmp_path):
    data = write(tmp_path / "data.jsonl", 6)
    for strategy in ("sequential", "group_by_length"):
        settings = TrainSettings(
            str(bloom), (data,), tmp_path / strategy, epochs=1, per_device_train_batch_size=2,
            trainer_options={"train_sampling_strategy": strategy}, formatter="special-tokens",
        )  # fmt: skip
        assert train(settings, manager).steps == 3


def test_a_batch_is_counted_in_rows_or_in_tokens(article, tmp_path):
    from click.testing import CliRunner

    from distill import make_plugin_manager
    from distill.cli.main import build_cli

    words = ["train", str(article), "--student", "x", "--out", str(tmp_path / "run"), "--batch-tokens", "100"]
    done = CliRunner().invoke(
        build_cli(make_plugin_manager(environ={"DISTILL_PLUGINS": ""})), [*words, "--batch-size", "4"]
    )
    assert isinstance(done.exception, UsageError) and "exclude each other" in str(done.exception)
