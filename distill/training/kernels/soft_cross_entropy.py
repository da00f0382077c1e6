"""Losses towards several tokens per position, which need their logits' memory once, as `cross_entropy` does."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = {"cpu": 2**20}  # logits looked at together: they stay in a processor's cache
_OTHER_BLOCK = 2**25


def summed_soft_cross_entropy(
    logits: Tensor,
    ids: Tensor,
    weights: Tensor,
    rest: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    mix: float = 0.0,
) -> Tensor:
    """The sum of cross-entropies towards weighted tokens, in float32.

    Per position `(1 - mix) * soft + mix * -log p(label)`, where `soft` is
    `-sum(weights * log p(ids)) - rest * log(1 - sum(p(ids)))`: its last term takes all other tokens as one category.
    While gradients are recorded, `logits` is overwritten: nothing else may need its values, and the result can be
    differentiated once.

    Args:
        logits: (positions, vocabulary), of any floating-point type.
        ids: (positions, K), each id at most once per position; -1 where there are fewer, but never in the first place.
        weights: (positions, K) float32; 0 where there is no id.
        rest: (positions,) float32, the weight of all other tokens together; None: 0 everywhere.
        labels: (positions,), where `mix` is above 0.
        mix: from 0 to 1.

    Returns:
        A scalar.
    """
    if mix and labels is None:
        raise ValueError("mix needs labels")
    if mix:
        weights, rest = weights * (1 - mix), None if rest is None else rest * (1 - mix)
    value: Tensor = _soft_cross_entropy().apply(logits, ids, weights, rest, labels if mix else None, mix)
    return value


def label_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """The log probability of each position's label, in float32. While gradients are recorded, `logits` is overwritten.

    Args:
        logits: (positions, vocabulary), of any floating-point type.
        labels: (positions,), all of them in the vocabulary.

    Returns:
        (positions,).
    """
    value: Tensor = _label_logprobs().apply(logits, labels)
    return value


def _rows(logits: Tensor) -> int:
    return max(1, _BLOCK.get(logits.device.type, _OTHER_BLOCK) // max(1, logits.shape[-1]))


def _towards(
    block: Tensor, ids: Tensor, weights: Tensor, rest: Tensor | None, label: Tensor | None, mix: float, record: bool
) -> Tensor:
    """The loss of some positions; their gradient is left in `block`."""
    import torch

    there = ids >= 0
    at = torch.where(there, ids, ids[:, :1]).long()
    log_probabilities = torch.log_softmax(block, -1, dtype=torch.float32)
    known = log_probabilities.gather(1, at)
    loss = -(weights * known.masked_fill(~there, 0)).sum()
    if label is not None:
        loss = loss - mix * log_probabilities.gather(1, label).sum()
    if not record and rest is None:
        return loss
    whole = weights.sum(1) + mix
    gradient = log_probabilities.exp_()
    if rest is None:
        gradient.mul_(whole[:, None])
        gradient.scatter_add_(1, at, -weights)
    else:
        # The candidates are taken out first: 1 minus their sum would lose all its digits where the sum is near 1.
        gradient.scatter_(1, at, 0.0)
        others = gradient.sum(1).clamp_min(1e-30)
        loss = loss - (rest * others.log()).sum()
        whole = whole + rest
        gradient.mul_((whole - rest / others)[:, None])
        gradient.scatter_add_(1, at, (whole[:, None] * known.exp() - weights).masked_fill(~there, 0))
    if label is not None:
        gradient.scatter_add_(1, label, gradient.new_full(label.shape, -mix))
    if record:
        block.copy_(gradient)
    return loss


@cache
def _soft_cross_entropy() -> Any:
    import torch
    from torch.autograd.function import once_differentiable

    class SummedSoftCrossEntropy(torch.autograd.Function):
        """The gradient is made in the forward pass, in place."""

        @staticmethod
        def forward(
            ctx: Any,
            logits: Tensor,
            ids: Tensor,
            weights: Tensor,
            rest: Tensor | None,
            labels: Tensor | None,
            mix: float,
        ) -> Tensor:
            total = torch.zeros((), dtype=torch.float32, device=logits.device)
            rows, record = _rows(logits), ctx.needs_input_grad[0]
            for start in range(0, len(logits), rows):
                here = slice(start, start + rows)
                some = None if rest is None else rest[here]
                label = None if labels is None else labels[here].unsqueeze(1)
                total += _towards(logits[here], ids[here], weights[here], some, label, mix, record)
            if record:
                ctx.save_for_backward(logits)
            return total

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
            (gradient,) = ctx.saved_tensors
            return gradient.mul_(scale.to(gradient.dtype)), None, None, None, None, None

    return SummedSoftCrossEntropy


@cache
def _label_logprobs() -> Any:
    import torch
    from torch.autograd.function import once_differentiable

    class LabelLogprobs(torch.autograd.Function):
        """The logits' memory holds the derivative of each position's value at its logits."""

        @staticmethod
        def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
            found, rows = [], _rows(logits)
            for block, wanted in zip(torch.split(logits, rows), torch.split(labels.unsqueeze(1), rows), strict=True):
                log_probabilities = torch.log_softmax(block, -1, dtype=torch.float32)
                found.append(log_probabilities.gather(1, wanted)[:, 0])
                if ctx.needs_input_grad[0]:
                    derivative = log_probabilities.exp_().neg_()
                    derivative.scatter_add_(1, wanted, derivative.new_ones(wanted.shape))
                    block.copy_(derivative)
            if ctx.needs_input_grad[0]:
                ctx.save_for_backward(logits)
            return torch.cat(found) if found else logits.new_zeros(0, dtype=torch.float32)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
            (derivative,) = ctx.saved_tensors
            return derivative.mul_(scale.to(derivative.dtype)[:, None]), None

    return LabelLogprobs
