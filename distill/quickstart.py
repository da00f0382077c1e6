"""The end-to-end demo: collect a teacher's answers, train a student on them, and measure what it learned.

The teacher is a file of recorded answers, the Spanish names of all countries; the student is SmolLM2-135M-Instruct.
40 prompts are held out: student and base are compared on the teacher's answers to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from distill.collection import CollectSettings, collect
from distill.comparison import CompareSettings, Comparison, as_json, compare
from distill.comparison.page import comparison_page
from distill.errors import UsageError
from distill.files.atomic import sha256_of, whole_file
from distill.pages import write_page
from distill.plugins import PluginManager
from distill.runs.run import is_run, open_run
from distill.training import TrainSettings, train

ANSWERS = "recorded-answers.jsonl"
HELD_OUT = 40
MAX_TOKENS = 32  # a country's name has fewer; the base goes on and on

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class QuickstartResult:
    """What came of it.

    Attributes:
        run: the run folder with the student.
        report: a page of the comparison, with all answers.
        seconds: of the whole.
        comparison: of the student with its base, on the held-out prompts.
    """

    run: str
    report: str
    seconds: float
    comparison: Comparison


def quickstart(
    out: Path,
    manager: PluginManager,
    *,
    student: str = "smollm2",
    epochs: float = 1.0,
    note: Note = lambda text: None,
    on_log: Callable[[Mapping[str, float]], None] = lambda row: None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> QuickstartResult:
    """Collect, train and measure, in a folder that is reused when it is there.

    Args:
        out: the folder to work in.
        manager: the plugins; they must offer the student.
        student: the model to train.
        epochs: passes over the transcripts.
        note: told what is being done, a line at a time.
        on_log: called after each training step.
        on_progress: told how far the comparison is, see `compare`.

    Raises:
        UsageError: a plugin is missing.
    """
    began = time.monotonic()
    if student in manager.models:
        manager.models.get(student).path()  # its weights may be missing: an error before anything is written
    train_prompts, held_prompts = _write_prompts(out)
    teacher = f"replay:{out / ANSWERS}"
    transcripts, held_out = out / "transcripts.jsonl", out / "held-out.jsonl"
    for prompts, answers in ((train_prompts, transcripts), (held_prompts, held_out)):
        note(f"$ distill collect {prompts} --teacher {teacher} --out {answers}")
        collecting = CollectSettings(teacher, concurrency=1)  # in order: the same run each time
        summary = collect(prompts, answers, collecting, manager)
        note(f"  {summary.rows} answers written, {summary.cached} were there already")
    run = out / "run"
    settings = TrainSettings(
        student,
        (transcripts,),
        run,
        epochs=epochs,
        learning_rate=1e-4,
        trainer_options={"lr_scheduler_type": "constant"},
    )
    note(
        f"$ distill train {transcripts} --student {student} --labeler masked --epochs {epochs:g} "
        f"--learning-rate 1e-4 -T lr_scheduler_type=constant --out {run}"
    )
    _train(settings, manager, note, on_log)
    note(f"$ distill compare {run} --data {held_out} --max-tokens {MAX_TOKENS}")
    comparison = compare(
        run,
        [held_out],
        manager,
        CompareSettings(max_tokens=MAX_TOKENS),
        note=lambda text: note(f"  {text}"),
        on_progress=on_progress,
    )
    with whole_file(out / "comparison.json") as file:
        file.write(as_json(comparison, indent=2) + "\n")
    report = out / "report.html"
    write_page(report, comparison_page(comparison, run))
    return QuickstartResult(str(run), str(report), round(time.monotonic() - began, 1), comparison)


def _write_prompts(out: Path) -> tuple[Path, Path]:
    """Lay the shipped prompts out: those to train on, and the held-out ones. They are in a fixed, shuffled order."""
    out.mkdir(parents=True, exist_ok=True)
    shipped = resources.files("distill.recipes")
    (out / ANSWERS).write_bytes(shipped.joinpath("quickstart-answers.jsonl").read_bytes())
    lines = shipped.joinpath("quickstart.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    parts = (out / "prompts.jsonl", lines[HELD_OUT:]), (out / "held-out-prompts.jsonl", lines[:HELD_OUT])
    for path, rows in parts:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return parts[0][0], parts[1][0]


def _train(settings: TrainSettings, manager: PluginManager, note: Note, on_log: Callable) -> None:
    """Train, unless the run is there: of the same transcripts with the same settings."""
    if is_run(settings.out) and (done := open_run(settings.out)).is_finished:
        same = done.data[0].sha256 == sha256_of(settings.data[0]) and all(
            done.manifest.value(name) == getattr(settings, name) for name in ("student", "epochs", "learning_rate")
        )
        if not same:
            raise UsageError(
                f"{settings.out} holds another run", f"remove {settings.out.parent}, or choose another --out"
            )
        note("  the trained student is there already")
        return
    train(settings, manager, resume=settings.out.exists(), note=lambda text: note(f"  {text}"), on_log=on_log)
