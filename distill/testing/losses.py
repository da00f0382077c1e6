"""The conformance suite of losses: what `distill.Loss` promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distill.protocols import Loss
from distill.testing.checks import Check, assert_all
from distill.types import SoftBatch

if TYPE_CHECKING:
    from torch import Tensor

_POSITIONS, _VOCABULARY, _K = 24, 50, 4


def check_loss(build: Callable[[], Loss], *, soft_labels: bool = False) -> None:
    """Hold a loss to its contract, on random logits.

    Args:
        build: makes the loss: `lambda: spec.build(options)`.
        soft_labels: whether it asks for soft targets.

    Raises:
        AssertionError: names each broken promise, and what to do.
    """
    assert_all(loss_checks(build, soft_labels=soft_labels))


def loss_checks(build: Callable[[], Loss], soft_labels: bool = False) -> list[Check]:
    """The checks of `check_loss`, one by one."""
    suite = _Suite(build, soft_labels)
    return [
        Check("it gives a scalar in float32, also of logits in 16 bits", suite.scalar),
        Check("it is a sum: of all positions what of two halves together", suite.adds_up),
        Check("its gradient is finite, also where the student is certain", suite.finite),
        Check("it has a gradient, which a constant added to a position's logits does not change", suite.invariant),
        Check("it can be computed without gradients, and again", suite.pure),
    ]


class _Suite:
    """A loss, and the positions it is tried on."""

    def __init__(self, build: Callable[[], Loss], soft_labels: bool):
        self._build, self._soft_labels = build, soft_labels

    def _loss(self) -> Loss:
        loss = self._build()
        assert callable(getattr(loss, "sum", None)), f"{type(loss).__name__} has no method sum; see `distill.Loss`"
        return loss

    def _positions(self, scale: float = 2.0) -> tuple[Tensor, Tensor, SoftBatch | None]:
        import torch

        random = torch.Generator().manual_seed(0)
        logits = torch.randn(_POSITIONS, _VOCABULARY, generator=random) * scale
        labels = torch.randint(_VOCABULARY, (_POSITIONS,), generator=random)
        if not self._soft_labels:
            return logits, labels, None
        told = (torch.randn(_POSITIONS, _VOCABULARY, generator=random) * 2).log_softmax(-1)
        top = told.topk(_K)
        size = torch.tensor([1, 0, 2, 0] * (_POSITIONS // 4), dtype=torch.int16)
        kind = torch.tensor([1, 2, 2, 0] * (_POSITIONS // 4), dtype=torch.int8)
        logprob = torch.where(size > 0, told.gather(1, labels[:, None])[:, 0], float("nan"))
        ids = torch.where((kind == 1)[:, None], top.indices, -1).int()
        plain = torch.arange(_POSITIONS) % 8 < 4
        return logits, labels, SoftBatch(kind, size, logprob, ids, top.values, plain)

    def scalar(self) -> None:
        """Shape and type."""
        import torch

        for kind in (torch.float32, torch.bfloat16):
            logits, labels, soft = self._positions()
            value = self._loss().sum(logits.to(kind), labels, soft)
            assert value.shape == () and value.dtype == torch.float32, f"it gave {value.dtype} of shape {value.shape}"

    def adds_up(self) -> None:
        """Chunks of logits are summed."""
        logits, labels, soft = self._positions()
        loss, half = self._loss(), _POSITIONS // 2
        whole = float(loss.sum(logits.clone(), labels, soft))
        parts = 0.0
        for here in (slice(None, half), slice(half, None)):
            parts += float(loss.sum(logits[here].clone(), labels[here], None if soft is None else soft[here]))
        assert abs(whole - parts) <= 1e-3 * max(1.0, abs(whole)), f"{whole:.4f} of all, {parts:.4f} of two halves"

    def finite(self) -> None:
        """Certain students are common at the end of a training."""
        import torch

        for scale in (0.0, 1.0, 200.0):
            logits, labels, soft = self._positions(scale)
            logits.requires_grad_()
            value = self._loss().sum(logits * 1.0, labels, soft)
            (gradient,) = torch.autograd.grad(value, logits)
            assert torch.isfinite(value), f"it is {float(value)} for logits of size {scale}"
            assert torch.isfinite(gradient).all(), f"its gradient is not finite for logits of size {scale}"

    def invariant(self) -> None:
        """Logits mean probabilities: only their differences count."""
        import torch

        logits, labels, soft = self._positions()
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss().sum(logits * 1.0, labels, soft), logits)
        assert gradient.abs().max() > 1e-6, "its gradient is 0: nothing would be trained"
        apart = float(gradient.sum(1).abs().max())
        assert apart <= 1e-3, f"its gradient sums to {apart:.4f} at a position: it looks at logits, not probabilities"

    def pure(self) -> None:
        """It is evaluated, too."""
        import torch

        logits, labels, soft = self._positions()
        loss = self._loss()
        with torch.no_grad():
            values = [float(loss.sum(logits.clone(), labels, soft)) for _ in range(2)]
        assert values[0] == values[1], f"it gave {values[0]} first, then {values[1]}"
