"""Numbers as the progress of a collection shows them."""

from __future__ import annotations


def short(number: float) -> str:
    """A number in few characters: 950, 1.2k, 3.4M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def dollars(amount: float) -> str:
    """Dollars, small amounts to a hundredth of a cent."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"
