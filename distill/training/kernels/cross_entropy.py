"""Cross-entropy that needs its logits' memory once: they become their own gradient."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = {"cpu": 2**20}  # logits looked at together: they stay in a processor's cache
_OTHER_BLOCK = 2**25


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of the cross-entropies, in float32.

    The same loss and gradient as `cross_entropy(logits.float(), labels, reduction="sum")`, which holds the logits,
    their logarithms of probabilities and the gradient at once. While gradients are recorded, `logits` is overwritten:
    nothing else may need its values, and it can be differentiated once.

    Args:
        logits: (positions, vocabulary), of any floating-point type.
        labels: (positions,), all of them in the vocabulary.

    Returns:
        A scalar.
    """
    total: Tensor = _function().apply(logits, labels)
    return total


@cache
def _function() -> Any:
    import torch
    from torch.autograd.function import once_differentiable

    class SummedCrossEntropy(torch.autograd.Function):
        """The gradient is made in the forward pass, in place: exp(log_softmax) minus one at the label."""

        @staticmethod
        def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
            total = torch.zeros((), dtype=torch.float32, device=logits.device)
            rows = max(1, _BLOCK.get(logits.device.type, _OTHER_BLOCK) // max(1, logits.shape[-1]))
            blocks = zip(torch.split(logits, rows), torch.split(labels.unsqueeze(1), rows), strict=True)
            for block, wanted in blocks:
                log_probabilities = torch.log_softmax(block, -1, dtype=torch.float32)
                total -= log_probabilities.gather(1, wanted).sum()
                if ctx.needs_input_grad[0]:
                    gradient = log_probabilities.exp_()
                    gradient.scatter_add_(1, wanted, gradient.new_full(wanted.shape, -1.0))
                    block.copy_(gradient)
            if ctx.needs_input_grad[0]:
                ctx.save_for_backward(logits)
            return total

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
            (gradient,) = ctx.saved_tensors
            return gradient.mul_(scale.to(gradient.dtype)), None

    return SummedCrossEntropy
