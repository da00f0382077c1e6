"""`export`: one exporter writes one folder, which appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from distill.collection.data_card import data_card
from distill.errors import DistillError, PluginError, UsageError, one_line
from distill.files.atomic import whole_folder
from distill.files.lock import owned
from distill.plugins import PluginManager
from distill.runs.run import open_run
from distill.types import DataExportJob, ExportJob


@runtime_checkable
class DataExporter(Protocol):
    """An exporter that can also publish a data set."""

    def export_data(self, job: DataExportJob) -> Sequence[str]:
        """Write files into `job.out`, and publish them; see `Exporter.export`."""
        ...


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
    """Write a trained student in a shape that other programs load, or publish a data set.

    Args:
        run: a run folder whose training is finished; or a file of transcripts, where the exporter publishes data sets.
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
    owner, source = manager.exporters.owner(to).owner, Path(run).expanduser()
    if source.is_file():
        if not isinstance(exporter, DataExporter):
            raise UsageError(f"exporter {to!r} writes students, and {source} is a file", "give a run folder")
        card = data_card(source, source.stem, manager)
        with _made(out) as made:
            job_of_data = DataExportJob(source, card, made, source.stem, note)
            notes = _run(owner, to, made, out, partial(exporter.export_data, job_of_data))
    else:
        model = open_run(run).model_dir
        with _made(out) as made:
            job = ExportJob(model, made, source.resolve().name, note, trust_remote_code)
            notes = _run(owner, to, made, out, partial(exporter.export, job))
    return Exported(sorted(path for path in out.rglob("*") if path.is_file()), list(notes or ()))


def _run(owner: str, to: str, made: Path, out: Path, export: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Run an exporter, and blame its plugin for what it breaks."""
    try:
        notes = export()
    except (DistillError, OSError):
        raise
    except Exception as error:
        raise PluginError(f"{owner} cannot export to {to!r}: {one_line(error)}") from error
    if not any(path.is_file() for path in made.rglob("*")):
        raise PluginError(f"{owner}: its exporter {to!r} wrote no file into {out}")
    return notes


@contextmanager
def _made(out: Path) -> Iterator[Path]:
    """Give a folder that becomes `out` when the block succeeds."""
    if out.exists():
        raise UsageError(f"{out} exists; it was left as it is", "choose another --out, or remove it")
    try:
        with owned(out), whole_folder(out) as made:
            yield made
    except OSError as error:  # transformers' and safetensors' own are DistillErrors by then
        raise DistillError(
            f"{out} cannot be written: {error.strerror or error}", "free some disk, or choose another --out"
        ) from error
