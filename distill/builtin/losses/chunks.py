"""The loss `chunks`: likelihoods of the stretches of text that both tokenizations share.

After "Cross-Tokenizer Distillation via Approximate Likelihood Matching" (Minixhofer, Vulić, Ponti; NeurIPS 2025,
arXiv:2503.20083): a chunk comes next or it does not, so that teacher and student each have a distribution over two
outcomes, p and 1 - p, and the student is pulled towards the teacher's by their binary cross-entropy. Only the written
tokens' log probabilities are needed, whatever the two vocabularies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distill import SoftBatch, label_logprobs, summed_cross_entropy

if TYPE_CHECKING:
    from distill.builtin.losses import ChunksOptions

_LEAST = 1e-6
"""Log-likelihoods are kept this far below 0: at 0 a chunk could not fail to come, and the other outcome has no log."""


class Chunks:
    """Pulls the student towards the teacher's likelihoods of chunks.

    Args:
        options: the temperature, and how much of the written tokens is mixed in.
    """

    def __init__(self, options: ChunksOptions):
        self._mix = options.mix
        self._temperature = options.temperature

    def sum(self, logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
        """See `distill.Loss`."""
        if soft is None:
            return summed_cross_entropy(logits, labels)
        own = label_logprobs(logits, labels)
        ends = ((soft.size > 0) & ~soft.logprob.isnan()).nonzero()[:, 0]
        sizes = soft.size[ends].long()
        starts = ends - sizes + 1
        number = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), sizes)
        first = torch.repeat_interleave(starts - (sizes.cumsum(0) - sizes), sizes)
        members = first + torch.arange(len(first), device=first.device)
        likelihood = own.new_zeros(len(ends)).index_add(0, number, own[members])
        matched = torch.zeros_like(own, dtype=torch.bool)
        matched[members] = True
        written = -own
        loss = written[~matched].sum() + self._mix * written[matched].sum()
        if self._mix < 1:
            loss = loss + (1 - self._mix) * binary_divergence(soft.logprob[ends], likelihood, self._temperature).sum()
        return loss


def binary_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """The KL divergence of two-outcome distributions: their binary cross-entropy, less what the teacher itself scores.

    It is multiplied by the temperature, which keeps its gradient the size of a cross-entropy's: for high temperatures
    the derivative at the student's log-likelihood s is t / s - 1, and vanishes where s equals the teacher's t.

    Args:
        teacher, student: (chunks,) log-likelihoods, 0 at most.
        temperature: likelihoods are compared as `p ** (1 / temperature)`.

    Returns:
        (chunks,), none below 0 but for rounding.
    """
    t = (teacher.double() / temperature).clamp(max=-_LEAST / temperature)
    s = (student.double() / temperature).clamp(max=-_LEAST / temperature)
    other_t, other_s = torch.log(-torch.expm1(t)), torch.log(-torch.expm1(s))
    return (temperature * (t.exp() * (t - s) - torch.expm1(t) * (other_t - other_s))).float()
