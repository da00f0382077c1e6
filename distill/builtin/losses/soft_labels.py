"""The loss `soft-labels`: each position towards the teacher's likeliest tokens.

Of the teacher's distribution q only the K likeliest tokens are known, with a mass m below 1. Two targets can be made:

* *unbiased*: for a token x sampled from q, the K divided by m where x is one of them, and x itself where it is not. Its
  expectation is m * (q on the K) / m + (q elsewhere) = q: the gradient is that of the full cross-entropy on average,
  with less noise than x alone. Dividing by m always, as is often done, is biased: it takes the tail away.
* *rest*: the K as they are, and all other tokens as one category of 1 - m. It is a lower bound of the full KL
  divergence, never negative, and needs no assumption about how x was chosen.

Where a position has no likeliest tokens (an end-of-turn marker, a token that is none of the teacher's), the target is
the written token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distill import SoftBatch, summed_cross_entropy, summed_soft_cross_entropy

if TYPE_CHECKING:
    from distill.builtin.losses import SoftLabelsOptions


class SoftLabels:
    """Pulls the student towards the teacher's likeliest tokens.

    Args:
        options: the target, and how much of the written token is mixed in.
    """

    def __init__(self, options: SoftLabelsOptions):
        self._mix = options.mix
        self._target = options.target

    def explain(self, rows: int, plain_rows: int) -> str:
        """See `distill.ExplainingLoss`."""
        if self._target != "auto":
            return f"target={self._target} for all {rows} rows"
        if plain_rows == rows:
            return f"target=unbiased: all {rows} rows were sampled at temperature 1 and top-p 1"
        if not plain_rows:
            return f"target=rest: none of {rows} rows is known to be sampled at temperature 1 and top-p 1"
        return (
            f"target=unbiased for {plain_rows} rows, sampled at temperature 1 and top-p 1, target=rest for the others"
        )

    def sum(self, logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
        """See `distill.Loss`."""
        if soft is None or not soft.ids.shape[1]:
            return summed_cross_entropy(logits, labels)
        plain = torch.full_like(soft.plain, self._target == "unbiased") if self._target != "auto" else soft.plain
        ids, weights, rest = make_targets(labels, soft, plain)
        entropy = _entropy(weights, rest, plain) * (1 - self._mix)
        return summed_soft_cross_entropy(logits, ids, weights, rest, labels=labels, mix=self._mix) - entropy


def make_targets(labels: Tensor, soft: SoftBatch, plain: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The weighted tokens that each position is pulled towards.

    Args:
        labels: (positions,).
        soft: the teacher's likeliest tokens.
        plain: (positions,) bool: where the unbiased target is taken.

    Returns:
        (positions, K) ids and weights, and (positions,) the weight of all other tokens together; None: 0 everywhere.
    """
    there = soft.ids >= 0
    known = torch.where(there, soft.logprobs.float().exp(), 0.0).nan_to_num(0.0)
    mass = known.sum(1)
    among = (soft.ids == labels[:, None]).any(1)
    usable = there.any(1) & (mass > 0) & (among | ~plain)
    # Rounding may bring the sum above 1: then there is no rest.
    whole = torch.where(plain, mass, mass.clamp_min(1.0)).clamp_min(1e-30)
    weights = torch.where(usable[:, None], known / whole[:, None], 0.0)
    rest = torch.where(usable & ~plain, (1 - mass).clamp_min(0.0), 0.0)
    ids = torch.where(usable[:, None], soft.ids, -1)
    ids[:, 0] = torch.where(usable, ids[:, 0], labels.to(ids.dtype))
    weights[:, 0] = torch.where(usable, weights[:, 0], 1.0)
    return ids, weights, None if bool(plain.all()) else rest


def _entropy(weights: Tensor, rest: Tensor | None, plain: Tensor) -> Tensor:
    """What the teacher itself would score, which makes a KL divergence of the cross-entropy of `rest` targets."""
    if rest is None:
        return weights.new_zeros(())
    each = -(torch.xlogy(weights, weights).sum(1) + torch.xlogy(rest, rest))
    return each.masked_fill(plain, 0.0).sum()
