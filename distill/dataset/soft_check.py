"""Whether enough of a data set's tokens have a teacher."""

from __future__ import annotations

from distill.dataset.findings import Findings
from distill.soft_labels.targets import SoftShares
from distill.specs import SoftNeeds

FLOOR = 0.5
"""The least fraction of the trained tokens that must have a teacher."""


def find_shares(shares: SoftShares, needs: SoftNeeds, findings: Findings) -> None:
    """Add a finding where too few tokens have a teacher, or some rows have none.

    Args:
        shares: of the data; where no row has soft targets there is nothing to find.
        needs: what the loss needs; `chunks` is the least that any loss needs.
        findings: added to.
    """
    if not shares.rows:
        return
    if shares.missing:
        findings.add("logprobs-missing", "data", f"{shares.missing} of {shares.missing + shares.rows} examples")
    covered = shares.fraction(shares.exact + shares.chunk)
    exact = shares.fraction(shares.exact)
    if covered < FLOOR:
        findings.add("few-tokens-aligned", "data", f"{covered:.1%} of {shares.trained}")
    elif needs == "tokens" and exact < FLOOR:
        findings.add("few-tokens-exact", "data", f"{exact:.1%} of {shares.trained}")
