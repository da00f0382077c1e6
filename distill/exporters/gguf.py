"""A student as one GGUF file: written, read back, and compared with the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import UsageError
from distill.exporters.gguf_file import OUTTYPES, write_gguf_file
from distill.exporters.llama_cpp import convert_with_llama_cpp
from distill.exporters.verify import compare_with_student, read_back
from distill.models.load import load_tokenizer
from distill.models.references import ModelRef
from distill.types import ExportJob


@dataclass(frozen=True, slots=True)
class GGUF:
    """A GGUF file that holds the student.

    Attributes:
        path: the file.
        adds_bos: whether llama.cpp puts the bos token before each prompt.
        notes: what was verified, and what could not be compared, one line each.
    """

    path: Path
    adds_bos: bool
    notes: Sequence[str]


def write_gguf(job: ExportJob, outtype: str = "f16", llama_cpp: str | Path | None = None) -> GGUF:
    """Write a student as one GGUF file, read it back, and compare it with the student.

    Template, end-of-turn marker, the token ids of ten conversations, all weights and greedy answers are compared.

    Args:
        job: the student, and the folder to write `student-OUTTYPE.gguf` into.
        outtype: how weights are stored: `f32`, `f16`, `bf16` or `q8_0`.
        llama_cpp: a checkout of llama.cpp, to convert with its own converter; default: distill's writer, which supports
            a few architectures.

    Raises:
        UsageError: an unknown outtype, or the student has no chat template.
        DistillError: the student cannot be written as GGUF, or what was written is not the student.
    """
    if outtype not in OUTTYPES:
        raise UsageError(f"unknown outtype {outtype!r}", f"choose one of {', '.join(OUTTYPES)}")
    model = ModelRef(str(job.model), job.trust_remote_code)
    if load_tokenizer(model).chat_template is None:
        raise UsageError(
            "the student's chat format comes from a plugin and has no Jinja template, so no other program could prompt "
            "it as it was trained",
            "train with a format that has one (chat-template, special-tokens), or export --to merged",
        )
    file = job.out / f"student-{outtype}.gguf"
    job.note(f"writing {file.name}")
    if llama_cpp is None:
        write_gguf_file(model, file, job.name, outtype)
    else:
        convert_with_llama_cpp(Path(llama_cpp), model, file, job.name, outtype)
    job.note("reading it back, and comparing it with the student")
    written = read_back(file)
    return GGUF(file, written.add_bos, compare_with_student(model, file, outtype, written))
