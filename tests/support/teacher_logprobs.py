"""A made-up teacher for tests: it tokenizes an answer and gives each token a distribution."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.soft_labels.rows import LogprobsOrigin, pack_logprobs
from distill.soft_labels.vocabulary import Vocabulary
from distill.types import Message, Transcript

PLAIN = LogprobsOrigin(raw=True, temperature=1.0, top_p=1.0)


def distribution(rng: random.Random, ids: range, k: int) -> list[tuple[int, float]]:
    """K ids of a distribution, likeliest first, and their log probabilities."""
    some = rng.sample(list(ids), k + 3)
    weights = sorted((rng.expovariate(1) ** 3 + 1e-4 for _ in some), reverse=True)
    total = sum(weights)
    return [(id, math.log(weight / total)) for id, weight in zip(some, weights, strict=True)]


def logprobs_of(
    tokenizer: Any, text: str, *, seed: int = 0, k: int = 5, with_ids: bool = True, stop: int | None = None
) -> dict[str, Any]:
    """Log probabilities of an answer, as a teacher with this tokenizer would tell them.

    Each token is drawn from its distribution, so that it is among the likeliest as often as these say.
    """
    rng = random.Random(f"{seed} {text}")
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False) + ([] if stop is None else [stop])
    tops, own = [], []
    for id in ids:
        told = distribution(rng, range(3, vocabulary.size), k)
        at = rng.choices(range(len(told)), [math.exp(value) for _, value in told])[0]
        told = [(other, value) for other, value in told if other != id or told[at][0] == id]
        at = min(at, len(told) - 1)
        told[at] = (id, told[at][1])
        own.append(told[at][1])
        tops.append(told[:k])
    tokens = vocabulary.bytes_of(ids)
    if not with_ids:
        tops = [[(vocabulary.bytes_of([id])[0], value) for id, value in top] for top in tops]
    origin = replace(PLAIN, tokenizer=vocabulary.fingerprint, end_ids=() if stop is None else (stop,))
    return pack_logprobs(
        tokens, own, ids=ids if with_ids else None, top=tops, k=k, end=int(stop is not None), origin=origin
    )


def told(text: str, logprobs: dict[str, Any], *, question: str = "Question?", **message: Any) -> Transcript:
    """A transcript of one question and one answer, with its log probabilities."""
    messages = (Message("user", question), Message("assistant", text, **message))
    return Transcript("t", messages, metadata={"logprobs": [logprobs]})


ANSWERS = [
    "Perro is dog in Spanish.",
    "Katze, das ist cat.",
    "chien et chat: dog and cat",
    "gato 👩‍👧 y perro!",
    "gatto.",
]


def write_told_rows(path: Path, tokenizer: Any) -> Path:
    """Write five answers with a made-up teacher's log probabilities, of the student's own tokenizer."""
    with path.open("w", encoding="utf-8") as file:
        for n, answer in enumerate(ANSWERS):
            messages = [{"role": "user", "content": f"How {n}?"}, {"role": "assistant", "content": answer}]
            told = logprobs_of(tokenizer, answer, seed=n)
            file.write(json.dumps({"id": str(n), "messages": messages, "metadata": {"logprobs": [told]}}) + "\n")
    return path
