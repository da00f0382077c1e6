"""`check`: is this data set what you think it is? The label check over all of it, and a look at the data themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distill.dataset.cache import prepare_data
from distill.dataset.conversations import compare, count_repeats, prompts_of
from distill.dataset.findings import CODES, Finding, Findings
from distill.dataset.pipeline import Pipeline
from distill.dataset.soft_check import find_shares
from distill.errors import DataError
from distill.pages import fragment
from distill.soft_labels.targets import SoftShares
from distill.transcripts.reader import Reader, skip_refused
from distill.transcripts.sources import Data, as_sources

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found. `rows` is `trained_rows` and `skipped_rows` together.

    Attributes:
        rows: transcripts read.
        trained_rows, skipped_rows: of them, before `--max-length`.
        examples: training rows; more than the trained rows where some became one example per answer.
        tokens: of all examples.
        trained_tokens: those that count in the loss.
        longest: tokens of the longest example.
        answers: all answers in the data, and of them `repeated_answers` that an earlier one has said word for word.
        findings: by severity, worst first.
        allowed: codes of errors that are accepted: the user's, and those that are the labeler's purpose.
        shares: what the trained tokens have of a teacher, where rows carry log probabilities.
    """

    rows: int
    trained_rows: int
    skipped_rows: int
    examples: int
    tokens: int
    trained_tokens: int
    longest: int
    answers: int
    repeated_answers: int
    findings: Findings
    allowed: frozenset[str] = frozenset()
    shares: SoftShares = field(default_factory=SoftShares)

    @property
    def errors(self) -> list[Finding]:
        """The errors that are not accepted: `train` would refuse these data."""
        return self.findings.errors(self.allowed)

    @property
    def ok(self) -> bool:
        """Whether the data can be trained."""
        return not self.errors

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with a line per row named by a finding, its columns those of `check --json`."""
        import pandas

        found = [finding.as_dict() for finding in self.findings]
        lines = [{**one, **row} for one in found for row in one["rows"]]
        columns = ["code", "severity", "count", "meaning", "hint", "row", "detail"]
        frame: pandas.DataFrame = pandas.DataFrame(lines, columns=columns)
        return frame

    def _repr_html_(self) -> str:
        return fragment("check", report=self, codes=CODES)


def check(
    data: Data,
    pipeline: Pipeline,
    *,
    max_length: int | None = None,
    against: Data = (),
    allow: Iterable[str] = (),
) -> CheckReport:
    """Verify the labels of transcripts, and look for what is wrong with the data.

    Args:
        data: the transcripts, see `distill.transcripts.sources`.
        pipeline: student, format and labeler.
        max_length: the most tokens that the student takes; None: no limit.
        against: held-out data whose prompts must not be in the data.
        allow: codes of errors that are accepted.

    Raises:
        DataError: the data cannot be read as transcripts.
    """
    prepared = prepare_data(data, pipeline)
    examples, findings = prepared.examples, prepared.findings
    for row in prepared.skipped:
        findings.add(row.code, row.source, row.reason)
    if not len(examples):
        findings.add("nothing-to-train", ", ".join(map(str, as_sources(data))))
    if max_length is not None:
        for number in (examples.lengths > max_length).nonzero()[0]:
            example = examples[int(number)]
            findings.add("overlong", example.source or example.id, f"{len(example.input_ids)} tokens, of {max_length}")
    findings.merge(prepared.data_findings)
    find_shares(prepared.shares, "chunks", findings)
    repeats = count_repeats(prepared.conversations)
    compare(prepared.conversations, _held_out(against, pipeline.reader), findings)
    return CheckReport(
        rows=prepared.rows,
        trained_rows=prepared.trained_rows,
        skipped_rows=len(prepared.skipped),
        examples=len(examples),
        tokens=int(examples.lengths.sum()),
        trained_tokens=int(examples.trained.sum()),
        longest=int(examples.lengths.max(initial=0)),
        answers=repeats.answers,
        repeated_answers=repeats.repeated,
        findings=findings,
        allowed=frozenset((*allow, *pipeline.allows)),
        shares=prepared.shares,
    )


def _held_out(against: Data, reader: Reader) -> dict[bytes, str]:
    """The prompts of the held-out data: their digests, and where each appears."""
    found: dict[bytes, str] = {}
    for source in as_sources(against):
        prompts = prompts_of(replace(reader, named=None).transcripts(source, skip_refused))
        if not prompts:
            raise DataError(f"{source} is empty", "--against takes held-out transcripts")
        found = {**prompts, **found}
    return found
