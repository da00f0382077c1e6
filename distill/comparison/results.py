"""What each model makes of the questions: answers, metrics and faults of base and student, answers of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.collection import NamedTeacher
from distill.comparison.measure import Measurement
from distill.comparison.metrics import PROMPT_TOKENS, Columns, Said, answer_columns, reading_columns, score_answers
from distill.comparison.models import Model, Models, QuestionSet
from distill.comparison.questions import Question, encode_answer
from distill.comparison.result import ModelAnswer
from distill.comparison.teacher_answers import ask_all
from distill.comparison.teacher_divergence import KL, divergence_column
from distill.comparison.verdict import faults_of
from distill.encode.encoder import Encoder
from distill.errors import DataError
from distill.plugins import PluginManager
from distill.transcripts.finish import Finish, finish_of
from distill.transcripts.teacher_prompt import teacher_messages_of
from distill.types import Message, Prompt

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Results:
    """One model's answers, and what they come to.

    Attributes:
        answers: one per question; None where there is none.
        columns: what they add to the metrics.
        faults: what is wrong with the model, see `faults_of`.
        seconds: what the answers took; None where it was not measured.
        parameters: the model's number of weights; None where it is not known.
        finite: whether its probabilities are finite numbers.
        fits: whether the teacher's answer to each question is within the token limit.
    """

    answers: Sequence[ModelAnswer | None]
    columns: Columns
    faults: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    parameters: int | None = None
    finite: bool = True
    fits: list[bool] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast it answered; None where that was not measured."""
        if self.seconds is None:
            return None
        return sum(one.tokens for one in self.answers if one is not None) / max(self.seconds, 1e-9)


def model_results(
    model: Model, models: Models, questions: QuestionSet, measured: Measurement, max_tokens: int
) -> Results:
    """Compare what was measured of a model with the teacher's answers.

    Args:
        model: one of the models.
        models: all of them.
        questions: what was asked.
        measured: its readings and answers.
        max_tokens: the token limit of its answers.
    """
    tokens = questions.tokens[model.who]
    counted = [models.counted(one) for one in tokens]
    said = [Said(one.text, one.completion_tokens, one.finish_reason == "stop") for one in measured.answers]
    answers = score_answers(said, questions.references, measured.readings, counted)
    fits = [len(one.answer) <= max_tokens for one in tokens]
    finite = all(one.perplexity is not None for one, count in zip(answers, counted, strict=True) if count)
    columns = {
        **answer_columns(answers, questions.references, fits),
        **reading_columns(measured.readings, tokens, counted),
    }
    if models.prompted is not None:
        columns[PROMPT_TOKENS] = ([float(len(one.prompt)) for one in tokens], [1.0] * len(tokens))
    unprompted = questions.tokens["base"] if model.who == "prompted_base" else tokens  # whose answers are the same
    divergence = divergence_column(measured.readings, questions.questions, unprompted, model.encoder)
    if divergence is not None:
        columns[KL] = divergence
    elif models.same_tokens:
        del columns["bits_per_byte"]  # perplexity tells the same
    faults = faults_of(answers, questions.references, fits, finite)
    return Results(answers, columns, faults, measured.seconds, measured.parameters, finite, fits)


def teacher_results(
    teacher: NamedTeacher,
    questions: QuestionSet,
    encoder: Encoder,
    manager: PluginManager,
    out: Path,
    *,
    note: Note,
    progress: bool,
) -> Results:
    """Ask the teacher once more: how far it agrees with itself is as far as a student can get.

    Args:
        teacher: who is asked.
        questions: what it is asked; those that do not end on a user or a tool cannot be.
        encoder: the student's, in whose format and tokens the answers are compared.
        manager: the plugins.
        out: the file of its answers, made or added to.
        note: told what it was not asked, and what it did not answer.
        progress: whether to show a live line.

    Raises:
        DistillError: the teacher failed for good.
    """
    able = [n for n, question in enumerate(questions.questions) if _askable(question.messages[-1:])]
    if len(able) < len(questions):
        note(f"{len(questions) - len(able)} questions do not end on a user: the teacher was not asked them")
    prompts = [_as_it_was_asked(questions.questions[n]) for n in able]
    asked = ask_all(manager, teacher, prompts, out, note=note, progress=progress)
    places, said = [], []
    for n, transcript in zip(able, asked, strict=True):
        if transcript is not None:
            whole = finish_of(transcript.metadata.get("finish_reason")) is Finish.WHOLE
            places.append(n)
            said.append(_said(questions.questions[n], transcript.messages[-1], encoder, whole))
    answers: list[ModelAnswer | None] = [None] * len(questions)
    for n, answer in zip(places, score_answers(said, [questions.references[n] for n in places]), strict=True):
        answers[n] = answer
    return Results(answers, answer_columns(answers, questions.references, [True] * len(questions)))


def _as_it_was_asked(question: Question) -> Prompt:
    """A question with what only the teacher saw."""
    hidden = teacher_messages_of(question.transcript)
    return Prompt(question.messages, tools=question.tools, teacher_messages=hidden)


def _said(question: Question, answer: Message, encoder: Encoder, whole: bool) -> Said:
    """A teacher's answer in the student's format and tokens."""
    try:
        tokens = encode_answer(question, answer, encoder)
    except DataError:  # the student's format cannot express it
        return Said(answer.content or "", 0, whole)
    return Said(tokens.text, len(tokens.answer), whole)


def _askable(last: Sequence[Message]) -> bool:
    """Whether a teacher can be asked a conversation that ends with this message."""
    return bool(last) and last[0].role in ("user", "tool") and bool((last[0].content or "").strip())
