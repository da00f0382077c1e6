"""`compare`: the whole of a comparison, from a run folder and held-out conversations to a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.collection.teachers import NamedTeacher
from distill.comparison.bootstrap import CONFIDENCE, RESAMPLES
from distill.comparison.judge import judge
from distill.comparison.leakage import leaks
from distill.comparison.metrics import METRICS, Columns, answer_columns, figures_of, given_answers, reading_columns
from distill.comparison.models import (
    Asked,
    Measured,
    Progress,
    Side,
    Sides,
    ask_both,
    make_sides,
    measure,
)
from distill.comparison.questions import Question, encode_answer, read_questions
from distill.comparison.result import Comparison, Given, Interval, Judged, Sample, Standing, Who
from distill.comparison.settings import CompareSettings
from distill.comparison.teacher_answers import ask_all
from distill.comparison.verdict import decide, faults_of
from distill.errors import DataError, DistillError, UsageError
from distill.files.atomic import sha256_of
from distill.plugins import PluginManager
from distill.runs.run import Run, open_run
from distill.types import Message, Prompt

FEW = 20  # conversations; of fewer, a percentile interval is too narrow

Note = Callable[[str], None]


def compare(
    run: Path,
    data: Sequence[Path],
    manager: PluginManager,
    settings: CompareSettings = CompareSettings(),  # noqa: B008 - it is frozen
    *,
    note: Note = lambda text: None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Measure a student and its base on held-out conversations, and say which is better.

    Each answer of the teacher is a question, after all that was said before it. The models are loaded one after the
    other. Nothing is written but what a teacher or a judge answers anew, in `RUN/comparison/`.

    Args:
        run: a run folder whose training is finished.
        data: files of held-out conversations; none: those that `train --hold-out` left in the run folder.
        manager: the plugins.
        settings: what is compared with what.
        note: told what is being done, a line at a time.
        on_progress: told how far it is; bars are shown where it is given.

    Raises:
        UsageError: the run, its base or the data are not there.
        DataError: the data cannot be read, or hold no question.
        DistillError: a model cannot be loaded, or the teacher failed for good.
    """
    settings = settings.named(manager)
    opened = open_run(run)
    files = list(data) or [_held_out(opened)]
    held = read_questions(files, settings.reader(manager), settings.limit)
    sides = make_sides(opened, settings.base, manager, settings.trust_remote_code)
    asked = ask_both(held.questions, sides)
    skipped = [*held.skipped, *asked.skipped]
    if not asked.questions:
        reason = f": {skipped[0]['source']}: {skipped[0]['reason']}" if skipped else ""
        raise DataError(f"{', '.join(map(str, files))}: nothing to ask{reason}", "give conversations with answers")
    bench = _Bench(opened, manager, settings, sides, asked, note, on_progress)
    given, columns = bench.measure_all()
    return bench.comparison(given, columns, files, skipped, leaks(opened, held.transcripts, manager))


def as_json(comparison: Comparison, *, indent: int | None = None) -> str:
    """A comparison as JSON, ASCII only, without its newline; it holds no NaN and no infinity."""
    return json.dumps(asdict(comparison), allow_nan=False, indent=indent)


def _held_out(run: Run) -> Path:
    path = run.paths.held_out
    if not path.is_file():
        raise UsageError(
            f"no held-out conversations: {run.path} was trained without --hold-out",
            "give a file that it was not trained on with --data FILE; or train with --hold-out 10%",
        )
    return path


class _Bench:
    """One comparison's questions and models, and what is found of them."""

    def __init__(
        self,
        run: Run,
        manager: PluginManager,
        settings: CompareSettings,
        sides: Sides,
        asked: Asked,
        note: Note,
        on_progress: Progress | None,
    ):
        self.run, self.manager, self.settings, self.sides, self.asked = run, manager, settings, sides, asked
        self.progress = on_progress is not None
        self.on_progress = on_progress or (lambda what, done, total: None)
        self.references = [tokens.text for tokens in asked.tokens["student"]]
        self.faults: dict[Who, dict[str, str]] = {}
        self.warnings: list[str] = []
        self._tell = note
        self.judged: Judged | None = None
        self.seconds: dict[Who, float] = {}

    def note(self, text: str) -> None:
        """Say something now, and in the comparison."""
        self._tell(text)
        self.warnings.append(f"{text[0].upper()}{text[1:]}.")

    def measure_all(self) -> tuple[dict[Who, list[Given | None]], dict[Who, Columns]]:
        """Ask everybody. The teacher is first: what it lacks, a key or a server, is known before the long work."""
        given: dict[Who, list[Given | None]] = {}
        columns: dict[Who, Columns] = {}
        teacher, referee = self.settings.named_teacher, self.settings.named_judge
        if teacher is not None:
            self._tell(f"asking {teacher.name} the {len(self.references)} questions")
            given["teacher"] = self._ask_teacher(teacher)
            columns["teacher"] = answer_columns(given["teacher"], self.references, [True] * len(self.references))
        for side in (self.sides.base, self.sides.student):
            self._tell(f"measuring the {side.who}, {side.name}, on {len(self.references)} questions")
            measured = measure(side, self.asked, self.settings, self.run.path, self.on_progress)
            given[side.who], columns[side.who] = self._results(side, measured)
        if referee is not None:
            self._ask_judge(referee, given)
        return given, columns

    def _results(self, side: Side, measured: Measured) -> tuple[list[Given | None], Columns]:
        tokens = self.asked.tokens[side.who]
        counted = [self.sides.counted(one) for one in tokens]
        given = given_answers(
            measured.texts, measured.written, measured.stopped, self.references, measured.readings, counted
        )
        fits = [len(one.answer) <= self.settings.max_tokens for one in tokens]
        finite = all(one.perplexity is not None for one, count in zip(given, counted, strict=True) if count)
        self.faults[side.who] = faults_of(given, self.references, fits, finite)
        if side.who == "student" and not all(fits):
            self.warnings.append(
                f"{fits.count(False)} of the teacher's {len(fits)} answers are longer than --max-tokens "
                f"{self.settings.max_tokens}: base and student could not finish theirs."
            )
        if side.who == "base" and not finite:
            self.warnings.append("The base's probabilities are not all finite numbers.")
        self.seconds[side.who] = measured.seconds
        return list(given), {**answer_columns(given, self.references, fits), **self._read(side, measured, counted)}

    def _read(self, side: Side, measured: Measured, counted: Sequence[int]) -> Columns:
        columns = dict(reading_columns(measured.readings, self.asked.tokens[side.who], counted))
        if self.sides.same_tokens:
            del columns["bits_per_byte"]
        return columns

    def _ask_teacher(self, teacher: NamedTeacher) -> list[Given | None]:
        """The teacher's answers, once more: how far it agrees with itself is as far as a student can come."""
        questions = self.asked.questions
        able = [n for n, question in enumerate(questions) if _askable(question.messages[-1:])]
        if len(able) < len(questions):
            self.note(f"{len(questions) - len(able)} questions do not end on a user: the teacher was not asked them")
        prompts = [Prompt(questions[n].messages, tools=questions[n].tools) for n in able]
        out = self.run.paths.teacher_answers
        answers = ask_all(self.manager, teacher, prompts, out, note=self.note, progress=self.progress)
        there = [(n, one) for n, one in zip(able, answers, strict=True) if one is not None]
        texts = [self._text_of(questions[n], one.messages[-1]) for n, one in there]
        given = given_answers(
            [text for text, _ in texts],
            [tokens for _, tokens in texts],
            [one.metadata.get("finish_reason") != "length" for _, one in there],
            [self.references[n] for n, _ in there],
        )
        all_given: list[Given | None] = [None] * len(questions)
        for (n, _), one in zip(there, given, strict=True):
            all_given[n] = one
        return all_given

    def _text_of(self, question: Question, answer: Message) -> tuple[str, int]:
        """An answer's text and length, in the student's format and tokens."""
        try:
            tokens = encode_answer(question, answer, self.sides.student.encoder)
        except DataError:  # it cannot be said in the student's format
            return answer.content or "", 0
        return tokens.text, len(tokens.answer)

    def _ask_judge(self, named: NamedTeacher, given: Mapping[Who, Sequence[Given]]) -> None:
        self._tell(f"asking {named.name} which answers are better")
        try:
            self.judged = judge(
                self.manager,
                named,
                self.asked.questions,
                given["student"],
                given["base"],
                self.run.paths.judgements,
                seed=self.settings.seed,
                note=self.note,
                progress=self.progress,
            )
        except DistillError as error:  # all else is measured by now, and does not depend on it
            self.note(f"nothing was judged: {error.message}")

    def comparison(
        self,
        given: Mapping[Who, Sequence[Given | None]],
        columns: Mapping[Who, Columns],
        files: Sequence[Path],
        skipped: Sequence[Mapping[str, str]],
        leaked: Sequence[str],
    ) -> Comparison:
        """Put it all together."""
        questions, sides = self.asked.questions, self.sides
        conversations = [question.conversation for question in questions]
        figures = figures_of(columns, conversations, self.settings.seed, sides.same_tokens)
        standings = {who: dict(figures.standings[who]) for who in ("base", "student", "teacher") if who in columns}
        for who, seconds in self.seconds.items():
            written = sum(one.tokens for one in given[who] if one is not None)
            standings[who]["tokens_per_second"] = Interval(written / max(seconds, 1e-9))
        names = {"base": sides.base.name, "student": sides.student.name}
        teacher = self.settings.named_teacher
        names["teacher"] = teacher.name if teacher is not None else ""
        metrics = [one for one in METRICS if any(one.name in standing for standing in standings.values())]
        by_name = {one.name: one for one in metrics}
        verdict, reasons = decide(
            by_name, standings["base"], standings["student"], figures.differences, self.faults, self.judged
        )
        return Comparison(
            run=str(self.run.path),
            data=[{"file": str(path), "sha256": sha256_of(path)} for path in files],
            conversations=len(set(conversations)),
            questions=len(questions),
            skipped=list(skipped),
            metrics=metrics,
            standings=[Standing(who, names[who], found) for who, found in standings.items()],
            differences=list(figures.differences),
            verdict=verdict,
            reasons=reasons,
            samples=[self._sample(n, question, given) for n, question in enumerate(questions)],
            judged=self.judged,
            settings=self._settings(),
            warnings=[*leaked, *self._cautions(len(set(conversations))), *self.warnings],
        )

    def _sample(self, n: int, question: Question, given: Mapping[Who, Sequence[Given | None]]) -> Sample:
        answers = {who: given[who][n] for who in ("base", "student", "teacher") if who in given and given[who][n]}
        reference, source = self.references[n], question.source
        return Sample(question.transcript.id, source, question.turn, question.messages, reference, answers)

    def _settings(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "max_tokens": settings.max_tokens,
            "batch_size": settings.batch_size,
            "limit": settings.limit,
            "seed": settings.seed,
            "resamples": RESAMPLES,
            "confidence": CONFIDENCE,
            "same_tokens": self.sides.same_tokens,
            "end_of_turn_counted": self.sides.marker_counts,
        }

    def _cautions(self, conversations: int) -> list[str]:
        """What a reader must know of how it was measured."""
        base, cautions = self.sides.base, []
        if conversations < FEW:
            cautions.append(f"Only {conversations} conversations were compared: the intervals are rough.")
        if not self.sides.same_tokens:
            cautions.append(
                "Base and student have different tokenizers: perplexity and agreement, which are per token, cannot be "
                "compared between them; bits per byte of the answers can."
            )
        if base.new_tokens & {id for one in self.asked.tokens["base"] for id in (*one.prompt, *one.answer)}:
            text = "The base was never trained on some tokens of the format it is asked in, and its answers show it."
            if not self.sides.marker_counts:
                text += (
                    " The end-of-turn marker is one of them: perplexity and agreement are of the answers without it."
                )
            cautions.append(text)
        return cautions


def _askable(last: Sequence[Message]) -> bool:
    """Whether a teacher can be asked what ends so."""
    return bool(last) and last[0].role in ("user", "tool") and bool((last[0].content or "").strip())
