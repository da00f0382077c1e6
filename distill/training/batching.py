"""Which rows go through the model together: batches of similar length, so that there is little padding.

The rows of an optimizer step are drawn at random. How they are divided into its forward passes (accumulation, and
processes) cannot change the step, since a step's loss is the mean over all its tokens; so they are divided by length.
With a token budget (`batch_tokens`) rows of similar length are put together first, and these batches are shuffled.
Everything follows from lengths, seed and epoch: every process computes it alone, and a resumed run finds its place.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from distill.errors import UsageError
from distill.types import IGNORE_INDEX, Example, PrefixGroup

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from distill.protocols import TrainJob
    from distill.training.settings import TrainSettings

Batch = list[int]
"""Row numbers; `~n`, which is negative, is row `n` without its labels (see `LengthBatchSampler`)."""

_POOL = 32
"""Rows are drawn at random for this many batches, then sorted by length together."""

_JITTER = 0.1
"""Noise on a row's length when sorting, as a fraction of it: so that batches differ from epoch to epoch."""


class LengthBatchSampler:
    """The batches of one process, one epoch at a time: a batch sampler for torch's DataLoader.

    Every row comes once per epoch. Each optimizer step has `gradient_accumulation_steps` batches in each process, the
    last one of an epoch as many as its rows need. A process for which no row is left gets a row without its labels,
    which adds nothing to loss and gradient. One process with accumulation 2 and two processes without take the same
    steps.

    Args:
        lengths: tokens per row.
        batch_size: rows per batch; unused with `batch_tokens`.
        batch_tokens: the most tokens per batch, padding included; rows of similar length are batched together.
        gradient_accumulation_steps: batches per optimizer step and process.
        epochs: how many there are. All have as many batches as the one that needs most; a later one repeats the first.
        seed: for the order.
        groups: rows that are batched together, for `--shared-prefix`.
        process_index: which process this is.
        num_processes: how many there are.

    Raises:
        UsageError: a row alone is longer than `batch_tokens`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        batch_tokens: int | None = None,
        gradient_accumulation_steps: int = 1,
        epochs: int = 1,
        seed: int = 0,
        groups: Sequence[PrefixGroup] = (),
        process_index: int = 0,
        num_processes: int = 1,
    ):
        longest = max(lengths, default=0)
        if batch_tokens is not None and batch_tokens < longest:
            raise UsageError(
                f"a batch of {batch_tokens} tokens has no room for the longest example, which has {longest}",
                "raise --batch-tokens, or lower --max-length",
            )
        self._lengths = lengths
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._groups = groups
        self._group_of = {row: number for number, group in enumerate(groups) for row in group.rows}
        self._index, self._processes = process_index, num_processes
        self._step = gradient_accumulation_steps * num_processes
        self._seed, self._epochs, self._epoch = seed, max(1, epochs), 0
        self._batches = self._count()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch of this process: the same in every epoch and process."""
        return self._batches // self._processes

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this process in the chosen epoch."""
        return iter(self._all(self._epoch)[self._index :: self._processes])

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(self._batches / self._step)

    def _count(self) -> int:
        """Batches per epoch, of all processes: equally many in each process and, given enough rows, in each step."""
        rows = len(self._lengths)
        if self._batch_tokens is None:
            whole = _round_up(math.ceil(rows / self._batch_size), self._processes)
        else:
            needed = max(len(self._by_tokens(epoch, self._batch_tokens)[0]) for epoch in range(self._epochs))
            whole = _round_up(needed, self._step)
        # With too few rows each is a batch, so that the steps are the same for any number of processes.
        return _round_up(min(whole, rows), self._processes)

    def _all(self, epoch: int) -> list[Batch]:
        """The batches of all processes, in turn: the first is the first process's, the second the second's, …"""
        if self._batch_tokens is None:
            return self._by_rows(epoch)
        epoch %= self._epochs  # later epochs might need more batches
        batches, order = self._by_tokens(epoch, self._batch_tokens)
        while len(batches) < min(self._batches, len(self._lengths)):
            most_rows = max(range(len(batches)), key=lambda n: len(batches[n]))
            batches[most_rows : most_rows + 1] = _cut(batches[most_rows], 2)
        order.shuffle(batches)
        if epoch == 0:  # a batch that does not fit into memory fails at once, not after hours
            largest = max(range(len(batches)), key=lambda n: self._size(batches[n]))
            batches[0], batches[largest] = batches[largest], batches[0]
        without_labels = [~batches[0][-1]]
        batches += [without_labels] * (self._batches - len(batches))
        ordered: list[Batch] = []
        for start in range(0, len(batches), self._step):
            step = batches[start : start + self._step]
            ordered += sorted(step, key=self._size, reverse=True)
        return ordered

    def _by_rows(self, epoch: int) -> list[Batch]:
        """Steps of the number of rows that was asked for, each cut into batches by length."""
        rows, order = self._shuffled(epoch)
        if self._groups:
            rows = self._together(rows, order)
        step_rows = self._batch_size * self._step
        batches: list[Batch] = []
        for start in range(0, len(rows), step_rows):
            step = sorted(rows[start : start + step_rows], key=self._by_group_and_length)
            batches += _cut(step, min(self._step, self._batches - len(batches)))
        return batches

    def _by_group_and_length(self, row: int) -> tuple[int, int]:
        return self._group_of.get(row, -1), -self._lengths[row]

    def _together(self, rows: Sequence[int], order: random.Random) -> list[int]:
        """The rows, those of a group beside each other; the order of groups and other rows is random."""
        members: dict[int, list[int]] = {}
        units: list[list[int]] = []
        for row in rows:
            group = self._group_of.get(row)
            if group is None:
                units.append([row])
            elif group in members:
                members[group].append(row)
            else:
                units.append(members.setdefault(group, [row]))
        order.shuffle(units)
        return [row for unit in units for row in unit]

    def _by_tokens(self, epoch: int, budget: int) -> tuple[list[Batch], random.Random]:
        """Pools of rows drawn at random, each sorted by length, up to some noise, and cut into batches."""
        shuffled, order = self._shuffled(epoch)
        batches: list[Batch] = []
        for group in self._groups:
            batches += self._fill_group(group, order, budget)
        rows = [row for row in shuffled if row not in self._group_of]
        pool_rows = max(1, _POOL * budget * len(rows) // max(1, sum(self._lengths[row] for row in rows)))
        for start in range(0, len(rows), pool_rows):
            pool = rows[start : start + pool_rows]
            noisy = {row: self._lengths[row] * order.uniform(1, 1 + _JITTER) for row in pool}
            batches += self._fill(sorted(pool, key=noisy.__getitem__, reverse=True), budget)
        return batches, order

    def _fill_group(self, group: PrefixGroup, order: random.Random, budget: int) -> list[Batch]:
        """Put a group's rows, in random order, into batches in which their common prefix counts once."""
        rows = list(group.rows)
        order.shuffle(rows)
        room = min(budget - group.shared, group.own)
        batches: list[Batch] = []
        own = 0
        for row in rows:
            tokens = self._lengths[row] - group.shared
            if not batches or own + tokens > room:
                batches.append([])
                own = 0
            batches[-1].append(row)
            own += tokens
        return batches

    def _fill(self, rows: Sequence[int], budget: int) -> list[Batch]:
        """Put rows, in their order, into batches within the budget."""
        batches: list[Batch] = []
        batch: Batch = []
        longest = 0
        for row in rows:
            longest = max(longest, self._lengths[row])
            if (len(batch) + 1) * longest > budget:
                batches.append(batch)
                batch, longest = [], self._lengths[row]
            batch.append(row)
        return [*batches, batch]

    def _shuffled(self, epoch: int) -> tuple[list[int], random.Random]:
        order = random.Random(f"{self._seed} {epoch}")
        rows = list(range(len(self._lengths)))
        order.shuffle(rows)
        return rows, order

    def _size(self, batch: Batch) -> int:
        """Tokens, padding included; a common prefix counts once."""
        rows = [max(row, ~row) for row in batch]
        groups = {self._group_of.get(row) for row in rows}
        if len(groups) == 1 and (group := groups.pop()) is not None:
            shared = self._groups[group].shared
            return shared + sum(self._lengths[row] - shared for row in rows)
        return len(batch) * max(self._lengths[max(row, ~row)] for row in batch)


def _cut(rows: Sequence[int], parts: int) -> list[Batch]:
    """Cut rows into parts whose sizes differ by one at most; a part for which no row is left is one without labels."""
    size, larger_parts = divmod(len(rows), parts)
    batches: list[Batch] = []
    start = 0
    for part in range(parts):
        end = start + size + (1 if part < larger_parts else 0)
        batches.append(list(rows[start:end]) or [~rows[-1]])
        start = end
    return batches


def _round_up(number: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return math.ceil(number / unit) * unit


class _Rows:
    """The examples as a map-style dataset of rows `{input_ids, labels}`; with `soft` where they have soft targets."""

    def __init__(self, examples: Sequence[Example]):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example = self._examples[row if row >= 0 else ~row]
        labels = example.labels if row >= 0 else [IGNORE_INDEX] * len(example.labels)
        soft = {} if example.soft is None else {"soft": example.soft}
        return {"input_ids": example.input_ids, "labels": labels, **soft}


def batch_sampler(
    settings: TrainJob | TrainSettings,
    lengths: Sequence[int],
    groups: Sequence[PrefixGroup] = (),
    *,
    process_index: int = 0,
    num_processes: int = 1,
) -> LengthBatchSampler:
    """The sampler for a job, or for the settings that it is made of.

    Args:
        settings: the batch size or token budget, accumulation, epochs and seed.
        lengths: tokens per example.
        groups: examples that are batched together.
        process_index: which process this is.
        num_processes: how many there are.

    Raises:
        UsageError: an example alone is longer than `batch_tokens`.
    """
    return LengthBatchSampler(
        lengths,
        batch_size=settings.per_device_train_batch_size,
        batch_tokens=settings.batch_tokens,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        epochs=math.ceil(settings.epochs),
        seed=settings.seed,
        groups=groups,
        process_index=process_index,
        num_processes=num_processes,
    )


def data_loader(
    job: TrainJob, *, process_index: int = 0, num_processes: int = 1, **options: Any
) -> DataLoader[dict[str, list[int]]]:
    """Make batches of the job's examples, for a trainer.

        loader = data_loader(job)
        for epoch in range(job.epochs):
            loader.batch_sampler.set_epoch(epoch)
            for batch in loader:
                model(**batch).loss.backward()

    Args:
        job: the examples, the collator and the settings.
        process_index: which process this is; each gets its own part of a step.
        num_processes: how many there are.
        options: more arguments for torch's DataLoader, such as `num_workers`.

    Returns:
        A torch DataLoader, whose `batch_sampler` is a `LengthBatchSampler`.
    """
    from torch.utils.data import DataLoader

    sampler = batch_sampler(
        job, job.lengths, job.prefix_groups, process_index=process_index, num_processes=num_processes
    )
    rows = cast("Dataset[dict[str, Any]]", _Rows(job.examples))
    return DataLoader(rows, batch_sampler=sampler, collate_fn=job.collate, **options)
