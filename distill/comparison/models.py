"""Base and student: in which tokens each is asked, and all that is measured on one, loaded and freed again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.comparison.measure import Reading, answer_questions, read_answers
from distill.comparison.questions import Question, Tokens, tokens_of
from distill.comparison.result import Who
from distill.comparison.settings import CompareSettings
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import DataError, UsageError
from distill.models.generate import ChatModel
from distill.models.load import load_tokenizer, max_positions
from distill.models.references import ModelRef, resolve_model
from distill.plugins import PluginManager, make_formatter
from distill.runs.run import Run, saved_format
from distill.training.failures import clear_failures

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Side:
    """A model that is compared, not loaded.

    Attributes:
        who: its part.
        name: as the user named it.
        ref: as `resolve_model` returns it.
        encoder: the tokens it is asked in.
        max_length: the most tokens it takes; None: no limit.
        seed: of the rows that its embedding table lacks. With the run's, a base is the student before training.
        new_tokens: of the encoder, those the model's own tokenizer does not have: it was never trained on them.
    """

    who: Who
    name: str
    ref: str
    encoder: Encoder
    max_length: int | None
    seed: int
    new_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Sides:
    """Both of them.

    Attributes:
        same_tokens: whether both are asked in the same tokens, so that figures per token can be compared.
    """

    base: Side
    student: Side
    same_tokens: bool

    @property
    def marker_counts(self) -> bool:
        """Whether the end-of-turn marker is among the tokens that are predicted: not where it is new to the base."""
        return self.base.encoder.stop not in self.base.new_tokens

    def counted(self, tokens: Tokens) -> int:
        """How many tokens of an answer are to be predicted; for both sides alike."""
        return len(tokens.answer) - (0 if self.marker_counts else tokens.marker)


def make_sides(run: Run, base: str | None, manager: PluginManager, trust_remote_code: bool = False) -> Sides:
    """Find base and student, and load their tokenizers; no base named is the run's own student.

    The base is asked in the student's own format and tokens, so that the prompts are the same to the token; unless it
    has another tokenizer: then in its own format.

    Raises:
        UsageError: one of them is not there.
    """
    base, seed = base or run.base, run.manifest.value("seed")
    name, ref = str(run.path), ModelRef(str(run.model_dir), trust_remote_code)
    encoder = _encoder(name, load_tokenizer(ref), manager)
    student = Side("student", name, ref, encoder, max_positions(ref), seed)
    try:
        base_ref = resolve_model(base, manager, trust_remote_code)
    except UsageError as error:
        raise UsageError(f"the base: {error.message}", f"name it with --base; {error.hint}") from None
    tokenizer = load_tokenizer(base_ref)
    own = tokenizer.get_vocab()
    same = _same_tokens(tokenizer, own, encoder.tokenizer)
    used = encoder if same else _encoder(base, tokenizer, manager)
    new = frozenset(id for token, id in used.tokenizer.get_vocab().items() if token not in own)
    return Sides(Side("base", base, base_ref, used, max_positions(base_ref), seed, new), student, same)


def _encoder(model: str, tokenizer: PreTrainedTokenizerFast, manager: PluginManager) -> Encoder:
    """The format that is saved with a model, over its tokenizer."""
    found = saved_format(model)
    return prepare_tokenizer(tokenizer, make_formatter(found.name, found.options, manager), found.name)


_PROBE = "Hello, world!\n\nÉté 2024: 12,345.67 €  naïve 東京 — don't; def f(x):\n    return x**2  # ok"


def _same_tokens(base: PreTrainedTokenizerFast, own: Mapping[str, int], student: PreTrainedTokenizerFast) -> bool:
    """Whether a student's tokenizer is its base's, but for tokens that were added."""
    vocabulary = student.get_vocab()
    if any(vocabulary.get(token) != id for token, id in own.items()):
        return False
    return base(_PROBE, add_special_tokens=False).input_ids == student(_PROBE, add_special_tokens=False).input_ids


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions that both sides can be asked.

    Attributes:
        questions: in order.
        tokens: of each, by who is asked.
        skipped: `source` and `reason` of the others.
    """

    questions: Sequence[Question]
    tokens: Mapping[Who, Sequence[Tokens]]
    skipped: Sequence[Mapping[str, str]]


def ask_both(questions: Sequence[Question], sides: Sides) -> Asked:
    """Encode the questions for both sides, and leave out what one of them cannot take."""
    kept: list[Question] = []
    tokens: dict[Who, list[Tokens]] = {"base": [], "student": []}
    skipped = []
    for question in questions:
        try:
            student = _fitting(question, sides.student)
            base = student if sides.same_tokens else _fitting(question, sides.base)
        except DataError as error:
            reason = f"message {len(question.messages)}: {error.message}"
            skipped.append({"source": question.source, "reason": reason})
            continue
        kept.append(question)
        tokens["base"].append(base)
        tokens["student"].append(student)
    return Asked(kept, tokens, skipped)


def _fitting(question: Question, side: Side) -> Tokens:
    tokens = tokens_of(question, side.encoder)
    if side.max_length is not None and len(tokens) > side.max_length:
        raise DataError(f"{len(tokens)} tokens, more than the {side.who} takes ({side.max_length})")
    return tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on one side: a reading of the teacher's answer and an answer of its own, a question."""

    readings: Sequence[Reading]
    texts: Sequence[str]
    written: Sequence[int]
    stopped: Sequence[bool]
    seconds: float


def measure(side: Side, asked: Asked, settings: CompareSettings, run: Path, on_progress: Progress) -> Measured:
    """Load a model, measure it, and free it.

    Raises:
        DistillError: it cannot be loaded, or there is too little memory.
    """
    import torch

    tokens = asked.tokens[side.who]
    doing = clear_failures("lower --batch-size", run)
    with doing(f"measuring the {side.who}"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(side.seed)
            chat = ChatModel.load_weights(side.ref, side.encoder)
        try:
            readings = read_answers(
                chat, tokens, settings.batch_size, _counter(on_progress, f"{side.who} reads", len(tokens))
            )
            answers, seconds = answer_questions(
                chat,
                asked.questions,
                tokens,
                max_tokens=settings.max_tokens,
                max_length=side.max_length,
                batch_size=settings.batch_size,
                done=_counter(on_progress, f"{side.who} answers", len(tokens)),
            )
        finally:
            del chat
            _free()
    return Measured(
        readings,
        [one.text for one in answers],
        [one.completion_tokens for one in answers],
        [one.finish_reason == "stop" for one in answers],
        seconds,
    )


def _counter(on_progress: Progress, what: str, total: int) -> Callable[[int], None]:
    count = 0

    def done(more: int) -> None:
        nonlocal count
        count += more
        on_progress(what, count, total)

    return done


def _free() -> None:
    """Give the memory of a model back before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
