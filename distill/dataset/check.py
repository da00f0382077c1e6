"""`check`: is this data set what you think it is? The label proof over all of it, and a look at the data themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from distill.dataset.cache import prepare_files
from distill.dataset.findings import Findings
from distill.dataset.pipeline import Work
from distill.errors import DataError
from distill.transcripts.dialects import read_transcripts
from distill.transcripts.digest import messages_digest, prompt_digest
from distill.types import Transcript


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found. `rows` is `trained_rows` and `skipped_rows` together.

    Attributes:
        rows: transcripts read.
        trained_rows, skipped_rows: of them, before `--max-length`.
        examples: training rows; more than the trained rows where some were split by answer.
        tokens: of all examples.
        trained_tokens: those that count in the loss.
        longest: tokens of the longest example.
        findings: by severity, worst first.
    """

    rows: int
    trained_rows: int
    skipped_rows: int
    examples: int
    tokens: int
    trained_tokens: int
    longest: int
    findings: Findings


def check(
    paths: Sequence[Path], work: Work, *, max_length: int | None = None, against: Sequence[Path] = ()
) -> CheckReport:
    """Prove the labels of files of transcripts, and look for what is wrong with the data.

    Args:
        paths: the data.
        work: student, format and labeler; see `distill.dataset.cache`.
        max_length: the most tokens that the student takes; None: no limit.
        against: held-out files whose prompts must not be in the data.

    Raises:
        DataError: a file cannot be read as transcripts.
    """
    prepared = prepare_files(paths, work)
    examples, findings = prepared.examples, prepared.findings
    for row in prepared.skipped:
        findings.add(row.code, row.source, row.reason)
    if not len(examples):
        findings.add("nothing-to-train", ", ".join(map(str, paths)))
    if max_length is not None:
        for row in (examples.lengths > max_length).nonzero()[0]:
            example = examples[int(row)]
            findings.add("overlong", example.source or example.id, f"{len(example.input_ids)} tokens, of {max_length}")
    _look(_read(paths, work.data_format), _prompts(against), findings)
    return CheckReport(
        rows=prepared.rows,
        trained_rows=prepared.trained_rows,
        skipped_rows=len(prepared.skipped),
        examples=len(examples),
        tokens=int(examples.lengths.sum()),
        trained_tokens=int(examples.trained.sum()),
        longest=int(examples.lengths.max(initial=0)),
        findings=findings,
    )


def _read(paths: Iterable[Path], data_format: str | None) -> Iterator[Transcript]:
    for path in paths:
        yield from read_transcripts(path, data_format)


def _look(transcripts: Iterable[Transcript], held_out: dict[bytes, str], findings: Findings) -> None:
    """Look at conversations as they stand in the file."""
    seen: dict[bytes, str] = {}
    for transcript in transcripts:
        where = str(transcript.source)
        if strange := _strange_order([message.role for message in transcript.messages]):
            findings.add("role-order", where, strange)
        if transcript.messages[-1].role == "user":
            findings.add("ends-on-user", where)
        digest = messages_digest(transcript.messages)
        if digest in seen:
            findings.add("duplicate", where, f"as {seen[digest]}")
        else:
            seen[digest] = where
        if held_out and (known := held_out.get(prompt_digest(transcript))):
            findings.add("leakage", where, f"as {known}")


def _strange_order(roles: Sequence[str]) -> str:
    """What is unusual about the order of the roles; empty for a conversation that takes turns."""
    if "system" in roles[1:]:
        return f"message {roles.index('system', 1)}: a system message that is not the first"
    talk = [role for role in roles if role != "system"]
    if talk and talk[0] != "user":
        return f"it starts with the {talk[0]}"
    for n, (one, other) in enumerate(pairwise(roles)):
        if one == other and one != "tool":
            return f"messages {n} and {n + 1} are both by the {one}"
    return ""


def _prompts(paths: Sequence[Path]) -> dict[bytes, str]:
    """The prompts of held-out files: their digest, and where each stands."""
    found: dict[bytes, str] = {}
    for path in paths:
        transcripts = list(read_transcripts(path))
        if not transcripts:
            raise DataError(f"{path} is empty", "--against takes a file of held-out transcripts")
        for transcript in transcripts:
            found.setdefault(prompt_digest(transcript), str(transcript.source))
    return found
