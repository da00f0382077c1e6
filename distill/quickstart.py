"""The main job on one page: a teacher answers, a student learns, and what it learned is measured.

The teacher knows the Spanish names of all countries (the plugin `babel`); the student is SmolLM2-135M-Instruct (the
plugin `smollm2`). 40 prompts are held out: they are asked before and after training, and the answers are compared
with the teacher's, letter by letter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from distill.chat_model import ChatModel
from distill.collect import collect
from distill.dialects import read_transcripts
from distill.errors import UsageError
from distill.files import sha256_of
from distill.formats import make_formatter
from distill.jsonl import dumps
from distill.models import resolve_model
from distill.plugins import PluginManager
from distill.train import TrainSettings, train
from distill.types import Message, Transcript

HELD_OUT = 40

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Compared:
    """One held-out prompt and what everybody said."""

    prompt: str
    base: str
    student: str
    teacher: str


@dataclass(frozen=True, slots=True)
class QuickstartResult:
    """How many held-out answers equal the teacher's, of how many, before and after; and the answers.

    Attributes:
        run: the run folder with the student.
        held_out: how many prompts were held out.
        base_right, student_right: exact matches with the teacher.
        seconds: of the whole.
        answers: all held-out prompts with the three answers.
    """

    run: str
    held_out: int
    base_right: int
    student_right: int
    seconds: float
    answers: Sequence[Compared]


def quickstart(
    out: Path,
    manager: PluginManager,
    *,
    student: str = "smollm2",
    teacher: str = "babel",
    epochs: float = 1.0,
    note: Note = lambda text: None,
    on_log: Callable[[Mapping[str, float]], None] = lambda row: None,
) -> QuickstartResult:
    """Collect, train and measure, in a folder that is reused when it is there.

    Args:
        out: the folder to work in.
        manager: the plugins; they must offer the student and the teacher.
        student: the model to train.
        teacher: who answers.
        epochs: passes over the transcripts.
        note: told what is being done, a line at a time.
        on_log: called after each training step.

    Raises:
        UsageError: a plugin is missing.
    """
    began = time.monotonic()
    for name, known in ((teacher.partition(":")[0], manager.teachers), (student, manager.models)):
        if name in ("babel", "smollm2") and name not in known:
            raise UsageError(
                f"the quickstart needs the plugin distill-{name}, which is not installed",
                f"`make quickstart` in a checkout installs it, or: pip install ./plugins/distill-{name}",
            )
    train_prompts, held_prompts = _write_prompts(out)
    transcripts, held_out = out / "transcripts.jsonl", out / "held-out.jsonl"
    for prompts, answers in ((train_prompts, transcripts), (held_prompts, held_out)):
        note(f"$ distill collect {prompts} --teacher {teacher} --out {answers}")
        summary = collect(prompts, teacher, answers, manager=manager, concurrency=1)  # in order: the same run each time
        note(f"  {summary.rows} answers written, {summary.cached} were there already")
    asked = list(read_transcripts(held_out))
    note(f"asking {student} the {len(asked)} held-out prompts, before training")
    base = _answers(out / "base.json", student, asked, manager)
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
    note(f"asking the student the {len(asked)} held-out prompts")
    learned = _answers(out / "student.json", str(run), asked, manager)
    compared = [
        Compared(one.messages[0].content or "", before, after, one.messages[-1].content or "")
        for one, before, after in zip(asked, base, learned, strict=True)
    ]
    result = QuickstartResult(
        run=str(run),
        held_out=len(compared),
        base_right=sum(row.base == row.teacher for row in compared),
        student_right=sum(row.student == row.teacher for row in compared),
        seconds=round(time.monotonic() - began, 1),
        answers=compared,
    )
    (out / "result.json").write_text(json.dumps(asdict(result), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return result


def _write_prompts(out: Path) -> tuple[Path, Path]:
    """Lay the shipped prompts out: those to train on, and the held-out ones. They are in a fixed, shuffled order."""
    out.mkdir(parents=True, exist_ok=True)
    lines = resources.files("distill").joinpath("data/quickstart.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    parts = (out / "prompts.jsonl", lines[HELD_OUT:]), (out / "held-out-prompts.jsonl", lines[:HELD_OUT])
    for path, rows in parts:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return parts[0][0], parts[1][0]


def _train(settings: TrainSettings, manager: PluginManager, note: Note, on_log: Callable) -> None:
    """Train, unless the run is there: of the same transcripts with the same settings."""
    manifest = settings.out / "run.json"
    if (settings.out / "model").is_dir():
        done = json.loads(manifest.read_text(encoding="utf-8"))
        same = done["data"][0]["sha256"] == sha256_of(settings.data[0]) and all(
            done["settings"][name]["value"] == getattr(settings, name)
            for name in ("student", "epochs", "learning_rate")
        )
        if not same:
            raise UsageError(
                f"{settings.out} holds another run", f"remove {settings.out.parent}, or choose another --out"
            )
        note("  the trained student is there already")
        return
    train(settings, manager, resume=settings.out.exists(), note=lambda text: note(f"  {text}"), on_log=on_log)


def _answers(path: Path, model: str, asked: Sequence[Transcript], manager: PluginManager) -> list[str]:
    """A model's answers to the held-out prompts; remembered in a file, for these very prompts and this model."""
    ref = resolve_model(model, manager)
    weights = next(Path(ref).glob("*.safetensors"), None)
    key: dict[str, Any] = {"model": ref, "written": weights.stat().st_mtime if weights else None}
    key["prompts"] = [one.messages[0].content for one in asked]
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known["answers"]
    chat = ChatModel.load(ref, make_formatter("chat-template", manager=manager))
    made = chat.generate([[Message("user", prompt)] for prompt in key["prompts"]], max_tokens=32)
    answers = [one.text.strip() for one in made]
    path.write_text(dumps({"key": key, "answers": answers}) + "\n", encoding="utf-8")
    return answers
