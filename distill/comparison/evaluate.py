"""`compare`: from a run folder and held-out conversations to a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.collection.costs import CostTable
from distill.comparison.bootstrap import CONFIDENCE, RESAMPLES
from distill.comparison.judge import judge
from distill.comparison.measure import Measurement, Progress, measure
from distill.comparison.metrics import METRICS, Measured
from distill.comparison.models import Models, QuestionSet, encode_questions, find_models
from distill.comparison.questions import HeldOut, read_questions
from distill.comparison.result import (
    Comparison,
    Interval,
    Judgement,
    ModelMetrics,
    PromptedBase,
    Sample,
    Who,
    title_of,
)
from distill.comparison.results import Note, Results, model_results, teacher_results
from distill.comparison.run_report import refresh_report
from distill.comparison.settings import CompareSettings
from distill.comparison.training_data import read_training_data
from distill.comparison.verdict import beside_prompted, decide
from distill.errors import DataError, DistillError, UsageError
from distill.pages.environment import counted
from distill.plugins import PluginManager, make_plugin_manager
from distill.runs.layout import RunPaths
from distill.runs.run import Run, open_run
from distill.transcripts.sources import Data, DataSource, as_sources

FEW = 20  # conversations; of fewer, a percentile interval is too narrow

_ORDER: tuple[Who, ...] = ("base", "prompted_base", "student", "teacher")


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what is being done, and what must be told in the comparison.

    Attributes:
        tell: told a line at a time.
        on_progress: told how far it is; None: no progress is shown.
        warnings: what a reader of the comparison must know.
    """

    tell: Note
    on_progress: Progress | None
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell something now, and in the comparison."""
        self.tell(text)
        self.warnings.append(f"{text[0].upper()}{text[1:]}.")

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell how far it is."""
        if self.on_progress is not None:
            self.on_progress(what, done, total)


def compare(
    run: str | Path,
    data: Data = (),
    manager: PluginManager | None = None,
    settings: CompareSettings = CompareSettings(),  # noqa: B008 - it is frozen
    *,
    note: Note = lambda text: None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Measure a student and its base on held-out conversations, and decide which is better.

    Each answer of the teacher is a question, after all that was said before it. The models are loaded one after the
    other. The comparison, and new answers of a teacher or a judge, are kept in the run folder, and its report shows it.

    Args:
        run: a run folder whose training is finished.
        data: held-out conversations, see `distill.transcripts.sources`; none: those that `train --hold-out` left in
            the run folder.
        manager: the plugins; default: those that are installed.
        settings: what is compared with what.
        note: told what is being done, a line at a time.
        on_progress: told how far it is; bars are shown where it is given.

    Raises:
        UsageError: the run, its base or the data do not exist.
        DataError: the data cannot be read, or hold no question.
        DistillError: a model cannot be loaded, or the teacher failed for good.
    """
    opened, manager = open_run(run), manager or make_plugin_manager()
    sources = as_sources(data) or (held_out_of(opened),)
    watch = Watch(note, on_progress)
    return compare_run(opened, sources, manager, settings.named(manager), watch, paid=opened.paths, memo={}).comparison


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, with what it was made of."""

    comparison: Comparison
    questions: QuestionSet
    results: Mapping[Who, Results]

    def places(self) -> dict[tuple[str, int], int]:
        """Conversation and answer of each question → its number."""
        return {(one.source, one.turn): n for n, one in enumerate(self.questions.questions)}


Memo = dict[Any, Measurement]
"""What was measured of a base already, prompted or not: the model and its questions → the measurement."""


def compare_run(
    opened: Run,
    sources: Sequence[DataSource],
    manager: PluginManager,
    settings: CompareSettings,
    watch: Watch,
    *,
    paid: RunPaths,
    memo: Memo,
) -> Compared:
    """As `compare`, of an open run, with all it found.

    Args:
        opened: the student's run.
        sources: the held-out conversations.
        manager: the plugins.
        settings: what is compared with what; teacher and judge looked up.
        watch: who is told of it.
        paid: the run folder in which answers of a teacher or a judge are kept.
        memo: bases that were measured already.
    """
    held = read_questions(sources, settings.reader(manager), settings.limit)
    models = find_models(opened, settings.base, manager, settings.trust_remote_code, prompted=settings.prompted_base)
    if settings.prompted_base:
        _require_prompts(held, sources)
    questions = encode_questions(held.questions, models)
    skipped = [*held.skipped, *questions.skipped]
    if not len(questions):
        reason = f": {skipped[0]['source']}: {skipped[0]['reason']}" if skipped else ""
        raise DataError(f"{', '.join(map(str, sources))}: nothing to ask{reason}", "give conversations with answers")
    results = _ask_teacher(models, questions, manager, settings, watch, paid)
    for model in models.all():
        key = (model.who, model.ref, model.seed, model.encoder.stop, str(questions.tokens[model.who]))
        if key not in memo:
            watch.tell(f"measuring the {title_of(model.who)}, {model.name}, on {counted(len(questions), 'question')}")
            measured = measure(model, questions, settings, opened.path, watch.progress)
            if model.who != "student":
                memo[key] = measured
        else:
            measured = memo[key]
        results[model.who] = model_results(model, models, questions, measured, settings.max_tokens)
    judgement = _ask_judge(questions, results, manager, settings, watch, paid)
    trained, recorded = read_training_data(opened, held.transcripts, manager), CostTable(manager)
    for transcript in held.transcripts:
        recorded.add(transcript.metadata)
    found = _summarise(opened, models, questions, results, judgement, settings)
    if found.prompted is not None and (count := found.prompted.without_prompt):
        watch.note(
            f"{count} of {len(questions)} questions have no prompt that only the teacher saw: the base gets none"
        )
    found = replace(
        found,
        data=[{"file": str(source), "sha256": source.digest()} for source in sources],
        skipped=skipped,
        warnings=[*trained.leaks, *found.warnings, *watch.warnings],
        costs=trained.costs,
        question_costs=recorded.found(),
        cost_unknown=trained.unknown,
    )
    refresh_report(opened, found)
    return Compared(found, questions, results)


def _require_prompts(held: HeldOut, sources: Sequence[DataSource]) -> None:
    """Check that there is a prompt for the prompted base.

    Raises:
        UsageError: no conversation has one.
    """
    if not any(question.transcript.metadata.get("teacher_messages") for question in held.questions):
        raise UsageError(
            f"no conversation of {', '.join(map(str, sources))} has a prompt that only the teacher saw",
            "collect them with --teacher-system or `teacher_messages`, or leave --prompted-base out",
        )


def held_out_of(run: Run) -> DataSource:
    """The conversations that a run's training held out.

    Raises:
        UsageError: there are none.
    """
    path = run.paths.held_out
    if not path.is_file():
        raise UsageError(
            f"no held-out conversations: {run.path} was trained without --hold-out",
            "give a file that it was not trained on with --data FILE; or train with --hold-out 10%",
        )
    return as_sources(path)[0]


def _ask_teacher(
    models: Models,
    questions: QuestionSet,
    manager: PluginManager,
    settings: CompareSettings,
    watch: Watch,
    paid: RunPaths,
) -> dict[Who, Results]:
    """Ask the teacher, if one is named. It comes first: a missing key or server shows before the long work."""
    teacher = settings.named_teacher
    if teacher is None:
        return {}
    watch.tell(f"asking {teacher.name} {counted(len(questions), 'question')}")
    encoder, progress = models.student.encoder, watch.on_progress is not None
    out = paid.teacher_answers
    return {"teacher": teacher_results(teacher, questions, encoder, manager, out, note=watch.note, progress=progress)}


def _ask_judge(
    questions: QuestionSet,
    results: Mapping[Who, Results],
    manager: PluginManager,
    settings: CompareSettings,
    watch: Watch,
    paid: RunPaths,
) -> Judgement | None:
    named = settings.named_judge
    if named is None:
        return None
    watch.tell(f"asking {named.name} which answers are better")
    try:
        return judge(
            manager,
            named,
            questions.questions,
            results["student"].answers,
            results["base"].answers,
            paid.judgements,
            seed=settings.seed,
            note=watch.note,
            progress=watch.on_progress is not None,
        )
    except DistillError as error:  # everything else is measured by now, and does not depend on it
        watch.note(f"nothing was judged: {error.message}")
        return None


def _summarise(
    run: Run,
    models: Models,
    questions: QuestionSet,
    results: Mapping[Who, Results],
    judgement: Judgement | None,
    settings: CompareSettings,
) -> Comparison:
    """Compute the metrics and the verdict."""
    measured = Measured(
        {who: results[who].columns for who in _ORDER if who in results}, questions.conversations, settings.seed
    )
    found = {who: measured.metrics_of(who) for who in _ORDER if who in results}
    for who, metrics in found.items():
        if (speed := results[who].tokens_per_second) is not None:
            metrics["tokens_per_second"] = Interval(speed)
    used = [one for one in METRICS if any(one.name in metrics for metrics in found.values())]
    if results["student"].parameters == results["base"].parameters:  # then their speeds differ by chance alone
        used = [one for one in used if one.name != "tokens_per_second"]
    differences = measured.differences("student", "base", models.same_tokens)
    faults = {who: one.faults for who, one in results.items()}
    by_name = {one.name: one for one in used}
    verdict, reasons = decide(by_name, found["base"], found["student"], differences, faults, judgement)
    names: dict[Who, str] = {model.who: model.name for model in models.all()}
    if (teacher := settings.named_teacher) is not None:
        names["teacher"] = teacher.name
    return Comparison(
        run=str(run.path),
        data=(),
        conversations=len(set(questions.conversations)),
        questions=len(questions),
        skipped=(),
        metrics=used,
        standings=[
            ModelMetrics(who, names[who], metrics, results[who].seconds, results[who].parameters)
            for who, metrics in found.items()
        ],
        differences=differences,
        verdict=verdict,
        reasons=reasons,
        samples=[_sample(n, questions, results) for n in range(len(questions))],
        judged=judgement,
        prompted=_beside_prompted(measured, found, questions, models),
        settings=_settings(settings, models),
        warnings=_cautions(models, questions, results, settings),
    )


def _beside_prompted(
    measured: Measured, found: Mapping[Who, Mapping[str, Interval]], questions: QuestionSet, models: Models
) -> PromptedBase | None:
    """The student beside its base with the teacher's prompt; None where that was not asked for."""
    if models.prompted is None:
        return None
    differences = measured.differences("student", "prompted_base", models.same_tokens)
    pairs = zip(questions.questions, questions.prompted, strict=True)
    without = sum(plain.messages == prompted.messages for plain, prompted in pairs)
    return beside_prompted(found["student"], found["prompted_base"], differences, without)


def _sample(n: int, questions: QuestionSet, results: Mapping[Who, Results]) -> Sample:
    question = questions.questions[n]
    answers = {}
    for who in _ORDER:
        answer = results[who].answers[n] if who in results else None
        if answer is not None:
            answers[who] = answer
    return Sample(
        id=question.transcript.id,
        source=question.source,
        turn=question.turn,
        messages=question.messages,
        reference=questions.references[n],
        answers=answers,
    )


def _settings(settings: CompareSettings, models: Models) -> dict[str, Any]:
    return {
        "max_tokens": settings.max_tokens,
        "batch_size": settings.batch_size,
        "limit": settings.limit,
        "seed": settings.seed,
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "same_tokens": models.same_tokens,
        "end_of_turn_counted": models.marker_counts,
    }


def _cautions(
    models: Models, questions: QuestionSet, results: Mapping[Who, Results], settings: CompareSettings
) -> list[str]:
    """What a reader must know about how it was measured."""
    cautions = []
    conversations = len(set(questions.conversations))
    if conversations < FEW:
        cautions.append(f"Only {counted(conversations, 'conversation')} compared: the intervals are rough.")
    if not models.same_tokens:
        cautions.append(
            "Base and student have different tokenizers: perplexity and agreement, which are per token, cannot be "
            "compared between them; bits per byte of the answers can."
        )
    if models.base.new_tokens & {id for one in questions.tokens["base"] for id in (*one.prompt, *one.answer)}:
        text = "The base was never trained on some tokens of the format it is asked in, and its answers show it."
        if not models.marker_counts:
            text += " The end-of-turn marker is one of them: perplexity and agreement are of the answers without it."
        cautions.append(text)
    if not results["base"].finite:
        cautions.append("The base's probabilities are not all finite numbers.")
    if long := results["student"].fits.count(False):
        cautions.append(
            f"{long} of the teacher's {len(questions)} answers are longer than --max-tokens {settings.max_tokens}: "
            "base and student could not finish theirs."
        )
    return cautions
