"""Base and student: which models they are, and the questions in the tokens of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distill.comparison.questions import Question, Tokens, tokens_of
from distill.comparison.result import Who, title_of
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import DataError, UsageError
from distill.models.load import load_tokenizer, max_positions
from distill.models.references import ModelRef, resolve_model
from distill.plugins import PluginManager, make_formatter
from distill.runs.run import Run, saved_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is compared; its weights are not loaded.

    Attributes:
        who: its part.
        name: as the user named it.
        ref: as `resolve_model` returns it.
        encoder: the tokens it is asked in.
        max_length: the most tokens it takes; None: no limit.
        seed: for embedding rows that its table lacks. With the run's, a base is the student before training.
        new_tokens: ids of the encoder that the model's own tokenizer does not have: it was never trained on them.
    """

    who: Who
    name: str
    ref: str
    encoder: Encoder
    max_length: int | None
    seed: int
    new_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Models:
    """Base and student.

    Attributes:
        same_tokens: whether both are asked in the same tokens, so that metrics per token can be compared.
        prompted: the base once more, to be asked with the prompt that only the teacher saw; None: it is not.
    """

    base: Model
    student: Model
    same_tokens: bool
    prompted: Model | None = None

    def all(self) -> list[Model]:
        """The models in the order to measure them: a base that is asked twice comes first."""
        return [self.base, *([self.prompted] if self.prompted else []), self.student]

    @property
    def marker_counts(self) -> bool:
        """Whether the end-of-turn marker is among the predicted tokens: not where it is new to the base."""
        return self.base.encoder.stop not in self.base.new_tokens

    def counted(self, tokens: Tokens) -> int:
        """How many tokens of an answer are to be predicted; the same for both models."""
        return len(tokens.answer) - (0 if self.marker_counts else tokens.marker)


def find_models(
    run: Run, base: str | None, manager: PluginManager, trust_remote_code: bool = False, *, prompted: bool = False
) -> Models:
    """Find base and student, and load their tokenizers.

    The base is asked in the student's own format and tokens, so that the prompts are the same, token for token; unless
    it has another tokenizer: then in its own format.

    Args:
        run: the student's run.
        base: the model to compare with; None: the one the student was trained from.
        manager: the plugins.
        trust_remote_code: whether code that comes with the models may run.
        prompted: whether the base is also asked with the prompt that only the teacher saw.

    Raises:
        UsageError: one of them does not exist.
    """
    base, seed = base or run.base, run.manifest.value("seed")
    name, ref = str(run.path), ModelRef(str(run.model_dir), trust_remote_code)
    encoder = _encoder(name, load_tokenizer(ref), manager)
    student = Model("student", name, ref, encoder, max_positions(ref), seed)
    try:
        base_ref = resolve_model(base, manager, trust_remote_code)
    except UsageError as error:
        raise UsageError(f"the base: {error.message}", f"name it with --base; {error.hint}") from None
    tokenizer = load_tokenizer(base_ref)
    own = tokenizer.get_vocab()
    same = _same_tokens(tokenizer, own, encoder.tokenizer)
    used = encoder if same else _encoder(base, tokenizer, manager)
    new = frozenset(id for token, id in used.tokenizer.get_vocab().items() if token not in own)
    found = Model("base", base, base_ref, used, max_positions(base_ref), seed, new)
    return Models(found, student, same, replace(found, who="prompted_base") if prompted else None)


def _encoder(model: str, tokenizer: PreTrainedTokenizerFast, manager: PluginManager) -> Encoder:
    """The format that is saved with a model, over its tokenizer."""
    found = saved_format(model)
    return prepare_tokenizer(tokenizer, make_formatter(found.name, found.options, manager), found.name)


_PROBE = "Hello, world!\n\nÉté 2024: 12,345.67 €  naïve 東京 — don't; def f(x):\n    return x**2  # ok"


def _same_tokens(base: PreTrainedTokenizerFast, own: Mapping[str, int], student: PreTrainedTokenizerFast) -> bool:
    """Whether a student's tokenizer is its base's, apart from tokens that were added."""
    vocabulary = student.get_vocab()
    if any(vocabulary.get(token) != id for token, id in own.items()):
        return False
    theirs, ours = (one(_PROBE, add_special_tokens=False).input_ids for one in (base, student))
    return bool(theirs == ours)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions that both models can be asked.

    Attributes:
        questions: in order.
        tokens: the questions in the tokens of each model.
        references: the teacher's answers, in order.
        skipped: `source` and `reason` of the questions left out.
        prompted: the questions with the prompt that only the teacher saw; empty where nobody is asked so.
    """

    questions: Sequence[Question]
    tokens: Mapping[Who, Sequence[Tokens]]
    references: Sequence[str]
    skipped: Sequence[Mapping[str, str]]
    prompted: Sequence[Question] = field(default=())

    def __len__(self) -> int:
        return len(self.questions)

    def asked(self, who: Who) -> Sequence[Question]:
        """The questions as a model is asked them."""
        return self.prompted if who == "prompted_base" else self.questions

    @property
    def conversations(self) -> list[int]:
        """The number of each question's conversation."""
        return [question.conversation for question in self.questions]


def encode_questions(questions: Sequence[Question], models: Models) -> QuestionSet:
    """Encode the questions for each model, and leave out what one of them cannot take."""
    kept: list[Question] = []
    prompted: list[Question] = []
    tokens: dict[Who, list[Tokens]] = {model.who: [] for model in models.all()}
    skipped: list[Mapping[str, str]] = []
    for question in questions:
        try:
            found: dict[Who, Tokens] = {"student": _fitting(question, models.student)}
            found["base"] = found["student"] if models.same_tokens else _fitting(question, models.base)
            if models.prompted is not None:
                as_teacher = question.as_teacher_saw()
                found["prompted_base"] = _fitting(as_teacher, models.prompted)
                prompted.append(as_teacher)
        except DataError as error:
            reason = f"message {len(question.messages)}: {error.message}"
            skipped.append({"source": question.source, "reason": reason})
            continue
        kept.append(question)
        for who, one in found.items():
            tokens[who].append(one)
    return QuestionSet(kept, tokens, [one.text for one in tokens["student"]], skipped, prompted)


def _fitting(question: Question, model: Model) -> Tokens:
    tokens = tokens_of(question, model.encoder)
    if model.max_length is not None and len(tokens) > model.max_length:
        raise DataError(f"{len(tokens)} tokens, more than the {title_of(model.who)} takes ({model.max_length})")
    return tokens
