"""The loss `cross-entropy`: each position towards the token that follows."""

from __future__ import annotations

from torch import Tensor

from distill import SoftBatch, summed_cross_entropy


class CrossEntropy:
    """The negative log-likelihood of the labels."""

    def sum(self, logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
        """See `distill.Loss`."""
        return summed_cross_entropy(logits, labels)
