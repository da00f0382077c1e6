"""Whether an answer's log probabilities can be what they say they are: what a shifted column gives away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.soft_labels.rows import AnswerLogprobs

if TYPE_CHECKING:
    import numpy as np

_ABSOLUTE, _RELATIVE = 0.02, 0.01
"""How far a token's own log probability may be from the candidates', which are kept as float16."""

_DEVIATIONS = 6.0
"""Standard deviations: one in a thousand million honest answers is further off."""


def implausible(answer: AnswerLogprobs) -> str | None:
    """Look for signs that an answer's columns do not belong together.

    A token among the candidates must have their log probability, and one that is not among them must be no likelier
    than the last of them. And an answer that was sampled must be found among its candidates about as often as they
    say: a distribution that is one token late keeps all its numbers in order, but not this.

    Returns:
        None, or what is wrong.
    """
    import numpy as np

    if not answer.top_ids.shape[1]:
        return None
    at = _written(answer)
    if at is None:
        return None
    told = (answer.top_ids >= 0).any(axis=1) & ~np.isnan(answer.logprobs)
    inside = np.asarray(at.any(axis=1))
    listed = np.where(at, answer.top_logprobs, -np.inf).max(axis=1)
    least = np.nanmin(np.where(told[:, None], answer.top_logprobs, 0.0), axis=1)
    slack = _ABSOLUTE + _RELATIVE * np.abs(answer.logprobs)
    off = np.where(inside, np.abs(answer.logprobs - listed) > slack, answer.logprobs > least + slack)
    wrong = off & told
    if wrong.sum() > max(1, 0.02 * told.sum()):
        return f"{int(wrong.sum())} of {int(told.sum())} tokens have another log probability than among the likeliest"
    return _rarely_among(answer, inside, told)


def _rarely_among(answer: AnswerLogprobs, inside: np.ndarray, told: np.ndarray) -> str | None:
    """Whether the tokens are among the likeliest far less often than the distributions say."""
    import numpy as np

    temperature = answer.origin.temperature
    if answer.origin.scored or (temperature is not None and temperature > 1):
        return None
    mass = np.minimum(np.nansum(np.exp(answer.top_logprobs[told].astype(np.float64)), axis=1), 1)
    expected, seen = float(mass.sum()), int(inside[told].sum())
    deviation = float(np.sqrt((mass * (1 - mass)).sum() + 1))
    if seen < expected - _DEVIATIONS * deviation:
        return f"{seen} of {int(told.sum())} tokens are among the likeliest, where {expected:.0f} should be"
    return None


def _written(answer: AnswerLogprobs) -> np.ndarray | None:
    """Where a written token is among its candidates, (tokens, K); None where that cannot be told."""
    import numpy as np

    if answer.vocabulary is None:
        return None if answer.ids is None else (answer.top_ids == answer.ids[:, None]) & (answer.top_ids >= 0)
    number = {token: n for n, token in enumerate(answer.vocabulary)}
    own = np.array([number.get(token, -2) for token in answer.tokens], np.int32)
    return np.asarray(answer.top_ids == own[:, None])
