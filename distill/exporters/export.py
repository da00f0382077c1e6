"""Exports: each makes one folder, whole and proved, or none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DistillError, UsageError
from distill.exporters.gguf_file import OUTTYPES, write_gguf
from distill.exporters.llama_cpp import convert_with_llama_cpp
from distill.exporters.ollama import modelfile
from distill.exporters.verify import prove, read_back
from distill.files.atomic import whole_folder
from distill.models.load import load_tokenizer
from distill.plugins import PluginManager
from distill.runs.run import open_run

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        files: their paths.
        notes: what was proved of them, and what could not be, a line each.
    """

    files: Sequence[Path]
    notes: Sequence[str] = ()


def export_merged(run: str, out: Path, manager: PluginManager) -> Exported:
    """Copy a student's safetensors, tokenizer and chat template; adapters are merged into the weights already.

    Args:
        run: a run folder whose training is finished.
        out: the folder to make, whole or not at all.
        manager: the plugins.

    Raises:
        UsageError: `run` is no finished run, or `out` exists.
    """
    with _student(run, out, manager) as (model, made):
        shutil.copytree(model, made, dirs_exist_ok=True)
    return _exported(out)


def export_gguf(
    run: str,
    out: Path,
    manager: PluginManager,
    *,
    outtype: str = "f16",
    llama_cpp: Path | None = None,
    note: Note = lambda text: None,
) -> Exported:
    """Write a student as one GGUF file, read it back, and compare it with the student.

    Args:
        run: a run folder whose training is finished.
        out: the folder to make, whole or not at all.
        manager: the plugins.
        outtype: how weights are stored, one of `OUTTYPES`.
        llama_cpp: a checkout of llama.cpp, to convert with its own converter; default: distill's writer, which knows
            a few architectures.
        note: told what is being done, a line at a time.

    Raises:
        UsageError: `run` is no finished run, `out` exists, or the student has no chat template.
        DistillError: the student cannot be written as GGUF, or what was written is not the student.
    """
    with _student(run, out, manager) as (model, made):
        _, _, notes = _gguf(model, made, Path(run).resolve().name, outtype, llama_cpp, note)
    return _exported(out, notes)


def export_ollama(
    run: str,
    out: Path,
    manager: PluginManager,
    *,
    outtype: str = "f16",
    llama_cpp: Path | None = None,
    note: Note = lambda text: None,
) -> Exported:
    """As `export_gguf`, with a Modelfile beside it: `ollama create NAME -f OUT/Modelfile`.

    Raises:
        DistillError: as `export_gguf`, or the chat format cannot be said in Ollama's template language.
    """
    with _student(run, out, manager) as (model, made):
        file, adds_bos, notes = _gguf(model, made, Path(run).resolve().name, outtype, llama_cpp, note)
        text, more = modelfile(model, file.name, adds_bos=adds_bos)
        (made / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
    return _exported(out, [*notes, *more])


@contextmanager
def _student(run: str, out: Path, manager: PluginManager) -> Iterator[tuple[Path, Path]]:
    """The student's folder, and a folder that becomes `out` when the block ends well."""
    model = open_run(run).model_dir
    if out.exists():
        raise UsageError(f"{out} exists; it was left as it is", "choose another --out, or remove it")
    try:
        with whole_folder(out) as made:
            yield model, made
    except OSError as error:  # transformers' and safetensors' own are DistillErrors by then
        raise DistillError(
            f"{out} cannot be written: {error.strerror or error}", "free some disk, or choose another --out"
        ) from error


def _gguf(
    model: Path, made: Path, name: str, outtype: str, llama_cpp: Path | None, note: Note
) -> tuple[Path, bool, list[str]]:
    """Write the file and prove it; returns it, whether it has bos put before prompts, and what was found."""
    if outtype not in OUTTYPES:
        raise UsageError(f"unknown outtype {outtype!r}", f"choose one of {', '.join(OUTTYPES)}")
    if load_tokenizer(str(model)).chat_template is None:
        raise UsageError(
            "the student's chat format is a plugin's and has no Jinja template, so that no other program could ask it "
            "as it was trained",
            "train with a format that has one (chat-template, special-tokens), or export --to merged",
        )
    file = made / f"student-{outtype}.gguf"
    note(f"writing {file.name}")
    if llama_cpp is None:
        write_gguf(model, file, name, outtype)
    else:
        convert_with_llama_cpp(llama_cpp, model, file, name, outtype)
    note("reading it back, and comparing it with the student")
    written = read_back(file)
    return file, written.add_bos, prove(model, file, outtype, written)


def _exported(out: Path, notes: Sequence[str] = ()) -> Exported:
    return Exported(sorted(path for path in out.rglob("*") if path.is_file()), notes)
