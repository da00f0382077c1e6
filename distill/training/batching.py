"""Which rows go through the model together: batches of like length, so that little is padding.

The rows of an optimizer step are drawn at random. How they are divided into its forward passes (accumulation, and
processes) cannot change the step, since a step's loss is the mean over all its tokens; so they are divided by length.
With a token budget (`batch_tokens`) rows of like length are put together first, and these batches are drawn at random.
Everything follows from lengths, seed and epoch: every process computes it alone, and a resumed run finds its place.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distill.errors import UsageError
from distill.types import IGNORE_INDEX, Example

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from distill.protocols import TrainJob
    from distill.training.settings import TrainSettings

Batch = list[int]
"""Row numbers; `~n`, which is negative, is row `n` without its labels (see `LengthBatchSampler`)."""

_POOL = 32  # batches' worth of rows, drawn at random, that are sorted by length together
_JITTER = 0.1  # of a row's length: the same rows do not meet in every epoch


class LengthBatchSampler:
    """The batches of one process, an epoch at a time: a batch sampler for torch's DataLoader.

    Every row comes once an epoch. Each optimizer step has `gradient_accumulation_steps` batches in each process, the
    last one of an epoch as many as its rows need. A process for which no row is left then gets one without its labels,
    which counts nothing. One process with accumulation 2 and two processes without take the same steps.

    Args:
        lengths: of the rows, in tokens.
        batch_size: rows a batch; not looked at with `batch_tokens`.
        batch_tokens: tokens a batch at most, padding included; rows of like length are batched together.
        gradient_accumulation_steps: batches an optimizer step and process.
        epochs: how many there are; all of them have as many batches as the one that needs most, and a further one is
            like the first.
        seed: of the order.
        process_index, num_processes: which of how many processes this is.

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
        self._index, self._processes = process_index, num_processes
        self._step = gradient_accumulation_steps * num_processes
        self._seed, self._epochs, self._epoch = seed, max(1, epochs), 0
        self._batches = self._count()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch of this process: the same in every epoch and process."""
        return self._batches // self._processes

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this process in the chosen epoch."""
        return iter(self._all(self._epoch)[self._index :: self._processes])

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return -(-self._batches // self._step)

    def _count(self) -> int:
        """Batches an epoch of all processes: as many for each process and, where there are rows enough, each step."""
        if self._batch_tokens is None:
            needed, unit = -(-len(self._lengths) // self._batch_size), self._processes
        else:
            needed, unit = max(len(self._by_tokens(epoch)[0]) for epoch in range(self._epochs)), self._step
        whole = -(-needed // unit) * unit
        # Too few rows: each is a batch, so that the steps are the same however they are dealt out.
        return -(-min(whole, len(self._lengths)) // self._processes) * self._processes

    def _all(self, epoch: int) -> list[Batch]:
        """The batches of all processes, in the order in which they are dealt out."""
        if self._batch_tokens is None:
            return self._by_rows(epoch)
        epoch %= self._epochs  # later epochs might need more batches
        batches, order = self._by_tokens(epoch)
        while len(batches) < min(self._batches, len(self._lengths)):
            largest = max(range(len(batches)), key=lambda n: len(batches[n]))
            batches[largest : largest + 1] = _cut(batches[largest], 2)
        order.shuffle(batches)
        if epoch == 0:  # what does not fit into memory shall fail at once, not after hours
            largest = max(range(len(batches)), key=lambda n: self._size(batches[n]))
            batches[0], batches[largest] = batches[largest], batches[0]
        batches += [[~batches[0][-1]]] * (self._batches - len(batches))
        steps = [batches[start : start + self._step] for start in range(0, len(batches), self._step)]
        return [batch for step in steps for batch in sorted(step, key=self._size, reverse=True)]

    def _by_rows(self, epoch: int) -> list[Batch]:
        """Steps of as many rows as were asked for, each cut into batches by length."""
        rows, _ = self._shuffled(epoch)
        size = self._batch_size * self._step
        batches: list[Batch] = []
        for start in range(0, len(rows), size):
            step = sorted(rows[start : start + size], key=self._lengths.__getitem__, reverse=True)
            batches += _cut(step, min(self._step, self._batches - len(batches)))
        return batches

    def _by_tokens(self, epoch: int) -> tuple[list[Batch], random.Random]:
        """Pools of rows, each sorted by length, more or less, and filled into batches."""
        rows, order = self._shuffled(epoch)
        pool = max(1, _POOL * self._batch_tokens * len(rows) // max(1, sum(self._lengths)))
        batches: list[Batch] = []
        for start in range(0, len(rows), pool):
            noisy = {row: self._lengths[row] * order.uniform(1, 1 + _JITTER) for row in rows[start : start + pool]}
            batch: Batch = []
            longest = 0
            for row in sorted(noisy, key=noisy.__getitem__, reverse=True):
                longest = max(longest, self._lengths[row])
                if (len(batch) + 1) * longest > self._batch_tokens:
                    batches.append(batch)
                    batch, longest = [], self._lengths[row]
                batch.append(row)
            batches.append(batch)
        return batches, order

    def _shuffled(self, epoch: int) -> tuple[list[int], random.Random]:
        order = random.Random(f"{self._seed} {epoch}")
        rows = list(range(len(self._lengths)))
        order.shuffle(rows)
        return rows, order

    def _size(self, batch: Batch) -> int:
        """Tokens, padding included."""
        return len(batch) * max(self._lengths[max(row, ~row)] for row in batch)


def _cut(rows: Sequence[int], parts: int) -> list[Batch]:
    """Cut rows into parts of equal size, to one row; where there are too few, a part is a row without its labels."""
    size, more = divmod(len(rows), parts)
    ends = [n * size + min(n, more) for n in range(parts + 1)]
    return [list(rows[start:end]) or [~rows[-1]] for start, end in itertools.pairwise(ends)]


class _Rows:
    """The examples as a map-style dataset of rows `{input_ids, labels}`."""

    def __init__(self, examples: Sequence[Example]):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        example = self._examples[row if row >= 0 else ~row]
        labels = example.labels if row >= 0 else [IGNORE_INDEX] * len(example.labels)
        return {"input_ids": example.input_ids, "labels": labels}


def batch_sampler(
    settings: TrainJob | TrainSettings, lengths: Sequence[int], *, process_index: int = 0, num_processes: int = 1
) -> LengthBatchSampler:
    """The sampler for a job, or for the settings that it is made of.

    Args:
        settings: the batch size or token budget, accumulation, epochs and seed.
        lengths: of the examples, in tokens.
        process_index, num_processes: which of how many processes this is.

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
        process_index=process_index,
        num_processes=num_processes,
    )


def data_loader(job: TrainJob, *, process_index: int = 0, num_processes: int = 1, **options: Any) -> DataLoader:
    """The job's examples as batches, for a trainer.

        loader = data_loader(job)
        for epoch in range(job.epochs):
            loader.batch_sampler.set_epoch(epoch)
            for batch in loader:
                model(**batch).loss.backward()

    Args:
        job: the examples, the collator and the settings.
        process_index, num_processes: which of how many processes this is; each gets its own part of a step.
        options: more arguments for torch's DataLoader, such as `num_workers`.

    Returns:
        A torch DataLoader, whose `batch_sampler` is a `LengthBatchSampler`.
    """
    from torch.utils.data import DataLoader

    sampler = batch_sampler(job, job.lengths, process_index=process_index, num_processes=num_processes)
    return DataLoader(_Rows(job.examples), batch_sampler=sampler, collate_fn=job.collate, **options)
