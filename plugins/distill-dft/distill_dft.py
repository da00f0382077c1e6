"""Dynamic fine-tuning (DFT): the cross-entropy of each token, weighted by the probability that the student gives it.

After "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification" (Wu et al.,
arXiv:2508.05629). The weight takes part in no gradient: tokens that the student finds very unlikely pull less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import distill

if TYPE_CHECKING:
    from torch import Tensor


class DynamicFineTuning:
    """Weights each token's cross-entropy by its probability."""

    def sum(self, logits: Tensor, labels: Tensor, soft: distill.SoftBatch | None) -> Tensor:
        """Sum the loss over some positions; see `distill.Loss`."""
        logprobs = distill.label_logprobs(logits, labels)
        return -(logprobs.detach().exp() * logprobs).sum()


@distill.hookimpl
def register_losses() -> list[distill.LossSpec]:
    """Offer `--loss dft`."""
    summary = "dynamic fine-tuning: the cross-entropy weighted by the student's own probability"
    return [distill.LossSpec("dft", summary, build=lambda options: DynamicFineTuning())]
