"""One model and the questions: how likely it finds the teacher's answers, and what it answers itself."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.comparison.models import Model, QuestionSet
from distill.comparison.questions import Question, Tokens
from distill.comparison.result import title_of
from distill.comparison.settings import CompareSettings
from distill.models.generate import ChatModel, Generation
from distill.models.lm_head import score_tokens
from distill.training.failures import clear_failures

MAX_LOGITS = 2**27
"""The most logits of a forward pass: 512 MiB in float32; 534 positions of BLOOM's 250,880 words."""

MAX_TOKENS = 2**13
"""The most tokens of a forward pass, padding included, unless one row alone has more: attention needs their squares."""

Done = Callable[[int], None]
"""Told how many more questions are done."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How likely a model finds the tokens of an answer.

    Attributes:
        losses: minus the natural logarithm of each token's probability, given all before it.
        hits: whether each token is the model's likeliest.
    """

    losses: list[float]
    hits: list[bool]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one model, in the order of the questions.

    Attributes:
        readings: of the teacher's answers.
        answers: the model's own.
        seconds: what its answers took.
        parameters: the model's number of weights.
    """

    readings: Sequence[Reading]
    answers: Sequence[Generation]
    seconds: float
    parameters: int


def measure(
    model: Model, questions: QuestionSet, settings: CompareSettings, folder: Path, on_progress: Progress
) -> Measurement:
    """Load a model, measure it, and free it.

    Args:
        model: which one.
        questions: what it is asked.
        settings: the token limit and the batch size.
        folder: the run, whose disk an error may be about.
        on_progress: told of the progress.

    Raises:
        DistillError: it cannot be loaded, or there is too little memory.
    """
    import torch

    who, tokens = title_of(model.who), questions.tokens[model.who]
    failures = clear_failures("lower --batch-size", folder)
    with failures(f"measuring the {who}"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(model.seed)
            chat = ChatModel.load_weights(model.ref, model.encoder)
        try:
            parameters = sum(weight.numel() for weight in chat.model.parameters())
            done = _counter(on_progress, f"{who} reads", len(tokens))
            readings = read_answers(chat, tokens, settings.batch_size, done)
            answers, seconds = answer_questions(
                chat,
                questions.asked(model.who),
                tokens,
                max_tokens=settings.max_tokens,
                batch_size=settings.batch_size,
                done=_counter(on_progress, f"{who} answers", len(tokens)),
            )
        finally:
            del chat
            _free()
    return Measurement(readings, answers, seconds, parameters)


def _counter(on_progress: Progress, what: str, total: int) -> Done:
    count = 0

    def done(more: int) -> None:
        nonlocal count
        count += more
        on_progress(what, count, total)

    return done


def _free() -> None:
    """Give a model's memory back before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_answers(chat: ChatModel, asked: Sequence[Tokens], batch_size: int, done: Done) -> list[Reading]:
    """Read the teacher's answers, each after its question.

    Only the positions that predict a token of an answer go through the LM head.

    Args:
        chat: the model.
        asked: questions and answers, in its tokens.
        batch_size: sequences of a forward pass; fewer where they are long.
        done: told of the progress.
    """
    losses: list[list[float]] = [[] for _ in asked]
    hits: list[list[bool]] = [[] for _ in asked]
    for batch in _batches(asked, batch_size, _most_positions(chat)):
        found = _read(chat, [(asked[n], start, end) for n, start, end in batch])
        for (n, start, _), (nlls, right) in zip(batch, found, strict=True):
            losses[n] += nlls
            hits[n] += right
            done(int(start == 0))
    return [Reading(*pair) for pair in zip(losses, hits, strict=True)]


def _most_positions(chat: ChatModel) -> int:
    vocabulary: int = chat.model.get_input_embeddings().weight.shape[0]
    return max(1, MAX_LOGITS // vocabulary)


def _batches(asked: Sequence[Tokens], size: int, positions: int) -> Iterator[list[tuple[int, int, int]]]:
    """Batches of like length, the longest first. An answer of more positions than one pass may have is read in parts.

    Yields:
        (question, start, end): which tokens of its answer.
    """
    batch: list[tuple[int, int, int]] = []
    for n in sorted(range(len(asked)), key=lambda n: -len(asked[n])):
        length = len(asked[n].answer)
        for start in range(0, length, positions):
            part = (n, start, min(start + positions, length))
            rows = [*batch, part]
            longest = len(asked[rows[0][0]])
            full = len(rows) > size or len(rows) * longest > MAX_TOKENS or sum(b - a for _, a, b in rows) > positions
            if batch and full:
                yield batch
                batch = []
            batch.append(part)
    if batch:
        yield batch


def _read(chat: ChatModel, parts: Sequence[tuple[Tokens, int, int]]) -> list[tuple[list[float], list[bool]]]:
    """One forward pass: the losses and hits of a part of each answer."""
    import torch

    rows = [[*tokens.prompt, *tokens.answer[:end]] for tokens, _, end in parts]
    longest = max(map(len, rows))
    device, pad = chat.model.device, chat.encoder.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for row, (tokens, start, end) in zip(keep, parts, strict=True):
        row[len(tokens.prompt) + start - 1 : len(tokens.prompt) + end - 1] = True
    targets = ids.roll(-1, 1)[keep]
    scores = score_tokens(chat.model, {"input_ids": ids, "attention_mask": mask}, keep, targets)
    sizes = [end - start for _, start, end in parts]
    found = zip(torch.split(scores.losses, sizes), torch.split(scores.hits, sizes), strict=True)
    return [(losses.tolist(), hits.tolist()) for losses, hits in found]


def answer_questions(
    chat: ChatModel,
    questions: Sequence[Question],
    asked: Sequence[Tokens],
    *,
    max_tokens: int,
    batch_size: int,
    done: Done,
) -> tuple[list[Generation], float]:
    """Let the model answer, greedily, in batches of like length.

    Args:
        chat: the model.
        questions: what to answer.
        asked: the same in its tokens.
        max_tokens: the longest answer.
        batch_size: conversations of a batch; fewer where they are long.
        done: told of the progress.

    Returns:
        The answers, in order, and the seconds they took.
    """
    answers: dict[int, Generation] = {}
    seconds = 0.0
    for batch in _answer_batches(asked, batch_size, max_tokens):
        began = time.perf_counter()
        made = chat.generate(
            [questions[n].messages for n in batch],
            max_tokens=max_tokens,
            tools=[questions[n].tools for n in batch],
        )
        seconds += time.perf_counter() - began
        answers.update(zip(batch, made, strict=True))
        done(len(batch))
    return [answers[n] for n in range(len(asked))], seconds


def _answer_batches(asked: Sequence[Tokens], size: int, max_tokens: int) -> Iterator[list[int]]:
    """Batches of answers of like length, by the teacher's: a batch takes as long as its longest answer."""
    batch: list[int] = []
    for n in sorted(range(len(asked)), key=lambda n: (-len(asked[n].answer), -len(asked[n].prompt))):
        longest = max(len(asked[one].prompt) for one in (*batch, n)) + max_tokens
        if batch and (len(batch) == size or (len(batch) + 1) * longest > MAX_TOKENS):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch
