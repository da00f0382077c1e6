"""One training in several processes: which one writes, what all must agree on, and how one's failure ends all.

`torchrun` and `accelerate launch` start the processes and pass each its rank in environment variables. The same code
runs in all of them; only the first one writes and prints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from distill.errors import DistillError
from distill.models.device import best_device

_PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one may have a large data set to tokenize."""


def is_main_process() -> bool:
    """Whether this process writes and prints; read from the environment, before torch is imported."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this training.

    Attributes:
        rank: this process's number; 0 writes and prints.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def highest(self, *numbers: int) -> tuple[int, ...]:
        """The highest of each number in all processes: they agree on it."""
        if self.size == 1:
            return numbers
        import torch

        tensor = torch.tensor(numbers, dtype=torch.int64, device=best_device())
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def sums(self, *numbers: float) -> tuple[float, ...]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return numbers
        import torch

        tensor = torch.tensor(numbers, dtype=torch.float64, device=best_device())
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.SUM)
        return tuple(tensor.tolist())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in all processes; none continues unless all succeeded.

        Not for code that itself exchanges tensors: the others would wait for a process that failed there.

        Raises:
            Exception: this process's own; in the first process another's, when it has none of its own.
            SystemExit: another process failed, and reports why.
        """
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        failed = self._gather(None if mine is None else _told(mine, self.rank))
        if failed and self.size > 1:
            _leave()
        if self.is_main and mine is None and failed:
            raise DistillError(*failed[0])
        if mine is not None and (self.is_main or not isinstance(mine, DistillError)):
            raise mine
        if failed:
            sys.exit(getattr(mine, "exit_code", 1))

    def _gather(self, told: tuple[str, str | None] | None) -> list[tuple[str, str | None]]:
        if self.size == 1:
            return [told] if told else []
        import torch

        everyone: list[tuple[str, str | None] | None] = [None] * self.size
        torch.distributed.all_gather_object(everyone, told)
        return [one for one in everyone if one is not None]


def _told(error: Exception, rank: int) -> tuple[str, str | None]:
    if isinstance(error, DistillError):
        return f"process {rank}: {error.message}", error.hint
    return f"process {rank} failed: {type(error).__name__}: {error}", None


@contextmanager
def join_world() -> Iterator[World]:
    """Join the other processes that `torchrun` or `accelerate launch` started, if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    import torch
    from accelerate import PartialState

    cpu = best_device() == "cpu"
    if cpu:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # else accelerate sees no other process
    owned = not torch.distributed.is_initialized()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    yield World(state.process_index, state.num_processes)
    if owned:
        _leave()


def _leave() -> None:
    """Leave the process group: a process that ends without it may abort in one of gloo's threads."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
