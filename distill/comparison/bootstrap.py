"""Bootstrap confidence intervals: what metrics, and their differences, would be on other conversations like these.

The conversations are resampled, not the answers: answers of one conversation are not independent. One resample is the
same conversations for every model (Koehn 2004, "Statistical significance tests for machine translation evaluation").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.comparison.result import Interval

if TYPE_CHECKING:
    from numpy import ndarray

RESAMPLES = 2000
CONFIDENCE = 0.95

_WEIGHTS = 2**22  # of a chunk of resamples: 32 MiB


def resampled_sums(sums: ndarray, seed: int, resamples: int = RESAMPLES) -> ndarray:
    """Resample the conversations with replacement, many times, and sum each resample.

    Args:
        sums: (conversations, columns): what each conversation adds to each column.
        seed: for the resamples.
        resamples: how many.

    Returns:
        (resamples, columns)
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    count = len(sums)
    chunk = max(1, _WEIGHTS // count)
    with numpy.errstate(invalid="ignore"):  # a metric that is not a number stays one
        parts = [
            generator.multinomial(count, [1 / count] * count, min(chunk, resamples - at)) @ sums
            for at in range(0, resamples, chunk)
        ]
    return numpy.concatenate(parts)


def interval(value: float, draws: ndarray, conversations: int) -> Interval:
    """The percentile confidence interval of a metric.

    Args:
        value: over all conversations.
        draws: its value in each resample; not finite where it cannot be computed.
        conversations: their number; a single one has no interval.
    """
    import numpy

    known = draws[numpy.isfinite(draws)]
    if conversations < 2 or 2 * len(known) <= len(draws):
        return Interval(float(value))
    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.quantile(known, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
