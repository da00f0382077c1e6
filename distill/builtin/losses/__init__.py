"""Built-in losses: the token, the teacher's distribution, and the teacher's likelihood of stretches of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from distill import Loss, LossSpec, NoOptions, hookimpl


@dataclass(frozen=True, slots=True)
class SoftLabelsOptions:
    """Options of the loss `soft-labels`.

    Attributes:
        mix: the weight of the written token itself, from 0 to 1; the teacher's distribution has the rest.
        target: `unbiased` renormalises the likeliest tokens where the written token is one of them, and takes the
            written token where it is not: right for answers sampled at temperature 1 and top-p 1. `rest` takes all
            other tokens as one category: for any answer. `auto` chooses per answer, by how it was made.
    """

    mix: float = 0.0
    target: Literal["auto", "unbiased", "rest"] = "auto"

    def __post_init__(self) -> None:
        _check_mix(self.mix)


@dataclass(frozen=True, slots=True)
class ChunksOptions:
    """Options of the loss `chunks`.

    Attributes:
        mix: the weight of the written tokens themselves, from 0 to 1; the likelihoods of chunks have the rest.
        temperature: likelihoods are compared as `p ** (1 / temperature)`, so that long chunks, whose likelihood is
            tiny, count as well.
    """

    mix: float = 0.0
    temperature: float = 100.0

    def __post_init__(self) -> None:
        _check_mix(self.mix)
        if not self.temperature >= 1 or math.isinf(self.temperature):
            raise ValueError("temperature must be 1 or more")


def _check_mix(mix: float) -> None:
    if not 0 <= mix <= 1:
        raise ValueError("mix must be a number from 0 to 1")


def _cross_entropy(options: NoOptions) -> Loss:
    from distill.builtin.losses.cross_entropy import CrossEntropy

    return CrossEntropy()


def _soft_labels(options: SoftLabelsOptions) -> Loss:
    from distill.builtin.losses.soft_labels import SoftLabels

    return SoftLabels(options)


def _chunks(options: ChunksOptions) -> Loss:
    from distill.builtin.losses.chunks import Chunks

    return Chunks(options)


@hookimpl
def register_losses() -> list[LossSpec]:
    """Offer `cross-entropy` (the default), `soft-labels` and `chunks`."""
    return [
        LossSpec("cross-entropy", "the written token, as everywhere", _cross_entropy),
        LossSpec(
            "soft-labels",
            "the teacher's likeliest tokens, where rows carry logprobs; teacher and student share a tokenizer",
            _soft_labels,
            SoftLabelsOptions,
            soft_labels="tokens",
        ),
        LossSpec(
            "chunks",
            "the teacher's likelihood of stretches of text; any tokenizer, needs the written tokens' logprobs only",
            _chunks,
            ChunksOptions,
            soft_labels="chunks",
        ),
    ]
