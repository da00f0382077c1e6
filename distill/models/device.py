"""Which device models run on."""

from __future__ import annotations


def best_device() -> str:
    """This machine's accelerator (`cuda`, `mps`, `xpu`, …), or `cpu` where there is none."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type
