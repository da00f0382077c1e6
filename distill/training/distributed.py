"""One training in several processes: who writes, what all must agree on, and how a failure of one ends all.

`torchrun` and `accelerate launch` start the processes and tell each its place in the environment. The same code runs in
all of them; the first one alone writes and prints.
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
"""How long a process waits for the others: the first one may have much to tokenize."""


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints; known from the environment, before torch is imported."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True, slots=True)
class World:
    """The processes of this training.

    Attributes:
        rank: this one's place; 0 writes and prints.
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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in all processes; none goes on unless all came to its end.

        Not around code that itself exchanges tensors: a process that failed there is no longer waited for.

        Raises:
            Exception: this process's own; in the first one, another's when it has none.
            SystemExit: another process failed, and says so.
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

        everyone: list = [None] * self.size
        torch.distributed.all_gather_object(everyone, told)
        return [one for one in everyone if one]


def _told(error: Exception, rank: int) -> tuple[str, str | None]:
    if isinstance(error, DistillError):
        return f"process {rank}: {error.message}", error.hint
    return f"process {rank} failed: {type(error).__name__}: {error}", None


@contextmanager
def join_world() -> Iterator[World]:
    """Meet the other processes that `torchrun` or `accelerate launch` started; alone without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    import torch
    from accelerate import PartialState

    cpu = best_device() == "cpu"
    if cpu:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # else accelerate takes each process for a training alone
    owned = not torch.distributed.is_initialized()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    yield World(state.process_index, state.num_processes)
    if owned:
        _leave()


def _leave() -> None:
    """Let go of the other processes: a process that ends without it may abort in one of gloo's threads."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
