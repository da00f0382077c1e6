"""The conformance suite of exporters: what `distill.Exporter` promises, on a tiny student."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import DistillError, UsageError
from distill.files.atomic import sha256_of
from distill.models.special_tokens import set_special_ids
from distill.protocols import Exporter
from distill.testing.checks import Check, Remark, assert_all
from distill.testing.students import save_student, tiny_llama
from distill.testing.tokenizers import TOKENIZERS
from distill.types import ExportJob


def tiny_student(folder: Path) -> Path:
    """Write a student as `distill train` does: a random Llama with the ChatML format, in a new folder.

    Args:
        folder: the folder to make.
    """
    tokenizer = TOKENIZERS["chatml"]()
    model = tiny_llama(tokenizer)
    set_special_ids(model, tokenizer, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return save_student(model, tokenizer, folder)


def check_exporter(build: Callable[[], Exporter]) -> None:
    """Hold an exporter to its contract: it is built, and exports a `tiny_student`.

    Args:
        build: makes the exporter, as the spec's does: `lambda: spec.build(options)`.

    Raises:
        AssertionError: names each broken promise, and what to do.
    """
    assert_all(exporter_checks(build))


def exporter_checks(build: Callable[[], Exporter]) -> list[Check]:
    """The checks of `check_exporter`, one by one."""
    suite = _Suite(build)
    return [
        Check("it exports a tiny student, or says why it cannot", suite.exports),
        Check("it writes files into job.out", suite.writes),
        Check("it returns its notes as lines of text", suite.notes),
        Check("the student's folder is not changed", suite.unchanged),
        Check("standard output is left to the command", suite.silent),
    ]


@dataclass(frozen=True, slots=True)
class _Export:
    """One export: what came of it."""

    refused: DistillError | None
    returned: Any
    files: Sequence[str]
    unchanged: bool
    out: str


class _Suite:
    """One export, done by the first check that needs it."""

    def __init__(self, build: Callable[[], Exporter]):
        self.build = build

    @cached_property
    def done(self) -> _Export:
        exporter = self.build()
        has = callable(getattr(exporter, "export", None))
        assert has, f"{type(exporter).__name__} has no method export; see `distill.Exporter`"
        returned, refused = None, None
        with tempfile.TemporaryDirectory() as folder:
            model = tiny_student(Path(folder) / "model")
            made = Path(folder) / "out"
            made.mkdir()
            before = _content(model)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                try:
                    returned = exporter.export(ExportJob(model, made, "tiny", lambda text: None))
                except UsageError:
                    raise
                except DistillError as error:
                    refused = error
            return _Export(refused, returned, list(_content(made)), _content(model) == before, out.getvalue())

    def exports(self) -> None:
        if self.done.refused is not None:
            raise Remark(f"it refuses the tiny student: {self.done.refused.message}")

    def writes(self) -> None:
        if self.done.refused is None:
            assert self.done.files, "it wrote no file; write into job.out, which appears as --out"

    def notes(self) -> None:
        if self.done.refused is not None:
            return
        notes = self.done.returned
        lines = isinstance(notes, Sequence) and not isinstance(notes, str) and all(isinstance(n, str) for n in notes)
        assert lines, f"export() returned {notes!r}; return a list of lines, empty where there is nothing to tell"

    def unchanged(self) -> None:
        assert self.done.unchanged, "it changed files in job.model, which is the student of the run; copy them first"

    def silent(self) -> None:
        assert not self.done.out, f"it prints {self.done.out[:200]!r}; use job.note, or return notes"


def _content(folder: Path) -> dict[str, str]:
    """The files in a folder, with their hashes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
