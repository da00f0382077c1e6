"""How far a model is from the teacher's own distribution, where held-out rows carry the teacher's log probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from distill.comparison.measure import Reading
from distill.comparison.questions import Question, Tokens
from distill.encode.encoder import Encoder
from distill.soft_labels.targets import SoftLabeler
from distill.types import SoftTargets

KL = "kl_to_teacher"


def divergence_column(
    readings: Sequence[Reading], questions: Sequence[Question], tokens: Sequence[Tokens], encoder: Encoder
) -> tuple[list[float], list[float]] | None:
    """What a model's readings of the teacher's answers add to its KL divergence from the teacher.

    For an answer that the teacher sampled, the mean of log q(token) - log p(token) is an unbiased estimate of
    KL(teacher, model) per token. Where tokenizers differ, the same is taken of chunks.

    Args:
        readings: one per question.
        questions: with the transcripts they are from.
        tokens: the questions and the teacher's answers, in the model's tokens.
        encoder: the model's.

    Returns:
        Nats and tokens, per question; None where no question has log probabilities.
    """
    if not any(question.transcript.metadata.get("logprobs") for question in questions):
        return None
    soft = SoftLabeler(encoder)
    nats, counts = [], []
    for reading, question, one in zip(readings, questions, tokens, strict=True):
        targets = _targets(soft, question, encoder)
        value, count = (0.0, 0.0) if targets is None else _difference(reading, targets, len(one.prompt))
        nats.append(value)
        counts.append(count)
    return (nats, counts) if sum(counts) else None


def _targets(soft: SoftLabeler, question: Question, encoder: Encoder) -> SoftTargets | None:
    """The teacher's part of one answer; None where it is not told, or does not fit."""
    turn = len(question.messages)
    segments = encoder.segments((*question.messages, question.answer), question.tools)
    [encoded] = encoder.encode_segments([segments])
    found: list[str] = []
    targets = soft.targets(
        question.transcript, {turn}, segments, encoded, encoded.input_ids, lambda code, detail: found.append(code)
    )
    return None if found else targets


def _difference(reading: Reading, targets: SoftTargets, start: int) -> tuple[float, float]:
    """Nats by which the teacher finds its answer likelier than the model does, and the tokens that were compared."""
    import numpy as np

    losses = np.array(reading.losses)
    stop = start + len(losses)
    sizes, logprobs = targets.size[start:stop].astype(int), targets.logprob[start:stop]
    ends = ((sizes > 0) & ~np.isnan(logprobs)).nonzero()[0]
    before = np.concatenate([[0.0], np.cumsum(losses)])
    model = before[ends + 1] - before[np.maximum(ends + 1 - sizes[ends], 0)]
    return float((model + logprobs[ends]).sum()), float(sizes[ends].sum())
