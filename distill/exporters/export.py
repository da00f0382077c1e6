"""`export`: one exporter writes one folder, which appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError, PluginError, UsageError, one_line
from distill.files.atomic import whole_folder
from distill.files.lock import owned
from distill.plugins import PluginManager
from distill.runs.run import open_run
from distill.types import ExportJob


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        files: their paths.
        notes: what was verified of them, and what could not be, one line each.
    """

    files: Sequence[Path]
    notes: Sequence[str] = ()


def export(
    run: str | Path,
    to: str,
    out: Path,
    manager: PluginManager,
    options: Mapping[str, Any] | None = None,
    *,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write a trained student in a shape that other programs load.

    Args:
        run: a run folder whose training is finished.
        to: the exporter's name, such as `merged`, `gguf` or `ollama`.
        out: the folder to make.
        manager: the plugins.
        options: the exporter's.
        trust_remote_code: whether Python code that comes with the student may run.
        note: called with a line about each step.

    Raises:
        UsageError: `run` is no finished run, `out` exists, the exporter is unknown, or an option does not fit.
        DistillError: the student cannot be written in this shape, or what was written is not the student.
        PluginError: the exporter failed, or wrote nothing.
    """
    exporter = manager.exporters.build(to, options)
    owner = manager.exporters.owner(to).owner
    with _student(run, out) as (model, made):
        try:
            notes = exporter.export(ExportJob(model, made, Path(run).resolve().name, note, trust_remote_code))
        except (DistillError, OSError):
            raise
        except Exception as error:
            raise PluginError(f"{owner} cannot export to {to!r}: {one_line(error)}") from error
        if not any(path.is_file() for path in made.rglob("*")):
            raise PluginError(f"{owner}: its exporter {to!r} wrote no file into {out}")
    return Exported(sorted(path for path in out.rglob("*") if path.is_file()), list(notes or ()))


@contextmanager
def _student(run: str | Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Give the student's folder, and a folder that becomes `out` when the block succeeds."""
    model = open_run(run).model_dir
    if out.exists():
        raise UsageError(f"{out} exists; it was left as it is", "choose another --out, or remove it")
    try:
        with owned(out), whole_folder(out) as made:
            yield model, made
    except OSError as error:  # transformers' and safetensors' own are DistillErrors by then
        raise DistillError(
            f"{out} cannot be written: {error.strerror or error}", "free some disk, or choose another --out"
        ) from error
