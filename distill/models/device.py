"""Which device models run on, and what it means that its memory does not suffice."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_NO_MEMORY = ("DefaultCPUAllocator: can't allocate", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def best_device() -> str:
    """This machine's accelerator (`cuda`, `mps`, `xpu`, …), or `cpu` where there is none."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


@cache
def bfloat16_gain(width: int) -> float:
    """Measure how many times faster the CPU multiplies matrices in bfloat16 than in float32; it takes 0.1 s or so.

    Instructions for it (AVX512-BF16, AMX, SVE) make it several times faster; without them it is slower.

    Args:
        width: the hidden size of a model, whose layers are matrices of this many columns and more.
    """
    import torch

    tokens, width = 512, min(width, 1024)
    hidden, weight = torch.ones(tokens, width), torch.ones(4 * width, width)

    def full() -> torch.Tensor:
        return hidden @ weight.T

    def half() -> torch.Tensor:
        return hidden.bfloat16() @ weight.bfloat16().T  # with the casts of a training step

    def fastest(multiply: Callable[[], torch.Tensor]) -> float:
        multiply()
        times = []
        for _ in range(3):
            began = time.perf_counter()
            multiply()
            times.append(time.perf_counter() - began)
        return min(times)

    return fastest(full) / fastest(half)


def describe_gain(gain: float) -> str | None:
    """Tell of bfloat16 where it makes matrix products at least 1.5 times as fast; None: it is not worth a word."""
    return f"matrix products are {gain:.1f} times as fast in bfloat16" if gain >= 1.5 else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory: torch's have no type of their own on all devices, but a text."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def free_memory() -> None:
    """Give back what a computation that failed has left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
