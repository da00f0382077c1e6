"""Which device models run on, and what it means that its memory does not suffice."""

from __future__ import annotations

import gc

_NO_MEMORY = ("DefaultCPUAllocator: can't allocate", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def best_device() -> str:
    """This machine's accelerator (`cuda`, `mps`, `xpu`, …), or `cpu` where there is none."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory: torch's have no type of their own on all devices, but a text."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def free_memory() -> None:
    """Give back what a computation that failed has left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
