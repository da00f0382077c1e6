"""The loss of a training: built by its name, checked against the data, and watched while it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill.dataset.findings import Findings
from distill.dataset.soft_check import find_shares
from distill.errors import DataError
from distill.plugins import PluginManager
from distill.protocols import ExplainingLoss, Loss
from distill.soft_labels.targets import SoftShares
from distill.specs import SoftNeeds

if TYPE_CHECKING:
    from torch import Tensor

    from distill.types import SoftBatch

DEFAULT_LOSS = "cross-entropy"


def make_loss(name: str, options: Mapping[str, Any], manager: PluginManager) -> tuple[Loss | None, SoftNeeds | None]:
    """Build a loss.

    Args:
        name, options: as the user gave them.
        manager: the plugins.

    Returns:
        The loss, None for the cross-entropy, which every student has without it; and what it needs of the teacher.

    Raises:
        UsageError: there is no such loss, or an option does not fit.
    """
    spec = manager.losses.get(name)
    built = manager.losses.build(name, options)
    return (None if name == DEFAULT_LOSS else built), spec.soft_labels


def check_shares(shares: SoftShares, needs: SoftNeeds, loss: str, findings: Findings) -> None:
    """Check that enough of the data has a teacher; what is wrong becomes a finding.

    Args:
        shares: of the data.
        needs: what the loss needs; `chunks` is enough for `check`, which knows of no loss.
        loss: its name, for the error.
        findings: added to.

    Raises:
        DataError: no row has log probabilities at all.
    """
    if not shares.rows and not any(code.startswith("logprobs-") for code in findings.counts):
        raise DataError(
            f"--loss {loss} needs the teacher's log probabilities, and no row has them",
            "collect with --logprobs 20; or add them to the rows with `distill score`",
        )
    find_shares(shares, needs, findings)


def explain(loss: Loss | None, shares: SoftShares) -> str:
    """One line about the teacher's part in a training."""
    line = str(shares)
    if isinstance(loss, ExplainingLoss):
        line += f"; {loss.explain(shares.rows, shares.plain_rows)}"
    return line


class CheckedLoss:
    """A loss that knows whether it was ever called: a trainer that forgets it would train something else.

    Args:
        loss: the loss.
    """

    def __init__(self, loss: Loss):
        self._loss = loss
        self.called = False

    def sum(self, logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
        """See `distill.Loss`."""
        self.called = True
        return self._loss.sum(logits, labels, soft)
