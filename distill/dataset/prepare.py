"""Transcripts to labelled examples. Every row is either trained or skipped with a reason."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from distill.dataset.conversations import describe
from distill.dataset.findings import Findings
from distill.dataset.overlong import too_long
from distill.dataset.settings import MAX_CHARACTERS, Overlong
from distill.dataset.table import Examples
from distill.dataset.verify import LabelCheck
from distill.encode.chat_rendering import TemplateOverrun
from distill.encode.encoder import Encoder, text_of
from distill.errors import DataError, DistillError, PluginError, one_line
from distill.protocols import Labeler
from distill.soft_labels.targets import SoftLabeler, SoftShares
from distill.transcripts.trainable import too_large, untrainable, untrainable_answer
from distill.types import IGNORE_INDEX, Encoded, Example, Message, Segment, Transcript

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 500  # transcripts prepared at a time


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained, with the reason in words and its code in `distill.dataset.findings`."""

    id: str
    source: str
    reason: str
    code: str = "skipped"


class _Unfit(DataError):
    """A row cannot be trained, for a reason that has a code."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Chunk:
    """Some transcripts, prepared.

    Attributes:
        examples: what is trained; more than the trained rows where a row became one example per answer.
        encoded: each example's conversation in tokens; not kept by `add`.
        skipped: the rows that are not trained, each once.
        rows: the number of transcripts that came in.
        held_out: how many of them are kept from training, to compare with afterwards.
        expanded_rows: rows that became one example per answer, since the template rewrites history.
        findings: what the label check found.
        data_findings: what is unusual about the conversations themselves.
        shares: what the trained tokens have of a teacher.
    """

    rows: int
    examples: list[Example] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    expanded_rows: int = 0
    findings: Findings = field(default_factory=Findings)
    data_findings: Findings = field(default_factory=Findings)
    held_out: int = 0
    shares: SoftShares = field(default_factory=SoftShares)

    def add(self, other: Chunk) -> None:
        """Add another chunk, whose transcripts follow these."""
        self.rows += other.rows
        self.held_out += other.held_out
        self.examples += other.examples
        self.skipped += other.skipped
        self.expanded_rows += other.expanded_rows
        self.findings.merge(other.findings)
        self.data_findings.merge(other.data_findings)
        self.shares.add(other.shares)


@dataclass(slots=True)
class Prepared:
    """What preparation made of the transcripts: a `Chunk`'s counts, and the examples as they are trained.

    Attributes:
        conversations: a table with a row per transcript, see `distill.dataset.conversations.describe`.
        truncated: the number of examples that were cut to the maximal length.
    """

    examples: Examples
    conversations: pa.Table
    skipped: list[Skipped]
    rows: int
    expanded_rows: int
    findings: Findings
    data_findings: Findings
    held_out: int
    shares: SoftShares
    truncated: int = 0

    @classmethod
    def of(cls, chunk: Chunk, examples: Examples, conversations: pa.Table) -> Prepared:
        """All transcripts as one chunk, with its examples and conversations in Arrow."""
        return cls(
            examples,
            conversations,
            chunk.skipped,
            chunk.rows,
            chunk.expanded_rows,
            chunk.findings,
            chunk.data_findings,
            chunk.held_out,
            chunk.shares,
        )

    @property
    def trained_rows(self) -> int:
        """Rows of which something is trained: all rows but those skipped and held out."""
        return self.rows - len(self.skipped) - self.held_out


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A transcript's conversation, or one answer of it with what came before, as segments."""

    transcript: Transcript
    segments: list[Segment]
    turns: frozenset[int]  # the assistant turns that count


def prepare(
    transcripts: Iterable[Transcript],
    encoder: Encoder,
    labeler: Labeler,
    *,
    labeler_name: str = "labeler",
    max_length: int | None = None,
    overlong: Overlong = "error",
    soft: SoftLabeler | None = None,
) -> Prepared:
    """Render, encode, label and verify transcripts, in memory (`distill.dataset.cache.prepare_data` is for large data).

    Args:
        transcripts: read lazily, in batches.
        encoder: for the student and its format.
        labeler: decides which tokens count.
        labeler_name: for errors.
        max_length: the most tokens per example; None: no limit.
        overlong: what to do with longer ones: refuse, leave the row out, or cut it.
        soft: makes the soft targets; None: none are made.

    Raises:
        DistillError: rows are too long and `overlong` is `error`.
        PluginError: the formatter or the labeler broke its contract.
    """
    import pyarrow as pa

    whole = Chunk(0)
    rows, conversations = iter(transcripts), []
    while read := list(islice(rows, CHUNK)):
        chunk = prepare_chunk(read, encoder, labeler, labeler_name, soft)
        conversations.append(describe(read, chunk.data_findings))
        whole.add(chunk)
    table = pa.Table.from_batches(conversations or [describe([], Findings())])
    prepared = Prepared.of(whole, Examples.of(whole.examples), table)
    fit(prepared, max_length, overlong)
    return prepared


def prepare_chunk(
    transcripts: Sequence[Transcript],
    encoder: Encoder,
    labeler: Labeler,
    labeler_name: str,
    soft: SoftLabeler | None = None,
    max_characters: int = MAX_CHARACTERS,
) -> Chunk:
    """Render, encode, label and verify a batch of transcripts, of any number of tokens."""
    chunk, checked = Chunk(len(transcripts)), LabelCheck(encoder)
    rendered: list[_Rendered] = []
    for transcript in transcripts:
        try:
            parts = _render(transcript, encoder, max_characters)
        except DataError as error:
            _skip(chunk.skipped, transcript, error.message, getattr(error, "code", "skipped"))
            continue
        except (PluginError, TemplateOverrun) as error:
            raise type(error)(f"{transcript.source or transcript.id}: {error.message}", error.hint) from error
        if len(parts) > 1:
            chunk.expanded_rows += 1
            checked.findings.add("history-rewritten", transcript.source or transcript.id)
        rendered += parts
    for part, encoded in _encode(rendered, encoder, chunk):
        example = _label(part, encoded, labeler, labeler_name, chunk, checked)
        if example is not None:
            chunk.examples.append(example if soft is None else _with_soft(example, part, encoded, soft, chunk, checked))
    chunk.findings = checked.finish()
    chunk.skipped = _settle(chunk.skipped, chunk.examples, chunk.findings)
    return chunk


def _skip(skipped: list[Skipped], row: Transcript | Example, reason: str, code: str = "skipped") -> None:
    skipped.append(Skipped(row.id, str(row.source or "?"), reason, code))


def _render(transcript: Transcript, encoder: Encoder, max_characters: int) -> list[_Rendered]:
    """Render a transcript as a whole; answer by answer where the template renders history differently from inference.

    Raises:
        DataError: nothing of it can be trained; says why.
    """
    messages, tools = transcript.messages, transcript.tools
    if found := untrainable(transcript) or too_large(transcript, max_characters):
        raise _Unfit(found.code, found.reason)
    turns = [turn for turn, message in enumerate(messages) if message.role == "assistant" and message.train]
    for turn in turns:
        if found := untrainable_answer(messages[turn]):
            raise _Unfit(found.code, f"message {turn}: {found.reason}")
    segments = encoder.segments(messages, tools)
    if all(_as_at_inference(segments, messages, turn, transcript, encoder) for turn in turns):
        return [_Rendered(transcript, segments, frozenset(turns))]
    parts = []
    for turn in turns:
        segments = encoder.segments(messages[: turn + 1], tools)
        if not _as_at_inference(segments, messages, turn, transcript, encoder):
            raise DataError(
                f"message {turn}: the format's generation prompt is not how it renders the text before an answer"
            )
        parts.append(_Rendered(transcript, segments, frozenset([turn])))
    return parts


def _as_at_inference(
    segments: Sequence[Segment],
    messages: Sequence[Message],
    index: int,
    transcript: Transcript,
    encoder: Encoder,
) -> bool:
    """Whether an answer is rendered as at inference: after its own prompt, and in the same words as when it was new.

    Templates that drop the reasoning of earlier answers render an answer differently once another message follows.
    """
    start = next((n for n, segment in enumerate(segments) if segment.turn == index), None)
    if start is None:
        return False
    prompt = encoder.prompt_segments(messages[:index], transcript.tools)
    before = list(segments[:start])
    if prompt != before and not _same_tokens(prompt, before, encoder):
        return False
    if index == len(messages) - 1:
        return True
    alone = encoder.segments(messages[: index + 1], transcript.tools)
    return text_of(_of_message(segments, index)) == text_of(_of_message(alone, index))


def _same_tokens(one: Sequence[Segment], other: Sequence[Segment], encoder: Encoder) -> bool:
    """Whether two renderings give the same tokens: the same text cut into other segments may give others."""
    if text_of(one) != text_of(other):
        return False
    if _owners(one) == _owners(other):
        return True
    encoded, compared = encoder.encode_segments([one, other])
    return encoded.input_ids == compared.input_ids


def _owners(segments: Sequence[Segment]) -> list[tuple[object, int]]:
    """The stretches of segments with one owner, each with its length."""
    owners = itertools.groupby(segments, lambda part: (part.content, part.role, part.turn, part.end_of_turn))
    return [(owner, sum(len(part.text) for part in parts)) for owner, parts in owners]


def _of_message(segments: Sequence[Segment], index: int) -> list[Segment]:
    return [segment for segment in segments if segment.turn == index]


def _encode(rendered: Sequence[_Rendered], encoder: Encoder, chunk: Chunk) -> Iterator[tuple[_Rendered, Encoded]]:
    """Encode in one batch; one by one where the batch fails, to find the row."""
    try:
        yield from zip(rendered, encoder.encode_segments([part.segments for part in rendered]), strict=True)
    except DataError:
        for part in rendered:
            try:
                yield part, encoder.encode_segments([part.segments])[0]
            except DataError as error:
                _skip(chunk.skipped, part.transcript, error.message)


def _label(
    part: _Rendered, encoded: Encoded, labeler: Labeler, name: str, chunk: Chunk, checked: LabelCheck
) -> Example | None:
    """Label a conversation; None where nothing of it is trained."""
    transcript = part.transcript
    try:
        labels = labeler.label(encoded)
    except DataError as error:
        _skip(chunk.skipped, transcript, f"labeler {name!r}: {error.message}")
        return None
    except DistillError:
        raise
    except Exception as error:
        where = transcript.source or transcript.id
        raise PluginError(f"labeler {name!r} failed on {where}: {one_line(error)}") from error
    _check_labels(labels, encoded, name, transcript)
    answers = {turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"}
    if left_out := answers - part.turns:
        labels = [IGNORE_INDEX if turn in left_out else label for label, turn in zip(labels, encoded.turn, strict=True)]
    example = Example(encoded.input_ids, labels, transcript.id, transcript.source)
    if not example.trained_tokens:
        _skip(chunk.skipped, transcript, f"labeler {name!r} leaves no token to train")
        return None
    checked.examine(transcript, part.turns, part.segments, encoded, labels)
    chunk.encoded.append(encoded)
    return example


def _with_soft(
    example: Example, part: _Rendered, encoded: Encoded, soft: SoftLabeler, chunk: Chunk, checked: LabelCheck
) -> Example:
    """Give an example the teacher's part, where its transcript tells it."""
    where = part.transcript.source or part.transcript.id

    def found(code: str, detail: str) -> None:
        checked.findings.add(code, where, detail)

    targets = soft.targets(part.transcript, part.turns, part.segments, encoded, example.labels, found)
    chunk.shares.count(example.labels, targets)
    chunk.shares.missing += not part.transcript.metadata.get("logprobs")
    return example if targets is None else replace(example, soft=targets)


def _check_labels(labels: list[int], encoded: Encoded, name: str, transcript: Transcript) -> None:
    where = f"labeler {name!r} on {transcript.source or transcript.id}"
    if not isinstance(labels, list) or len(labels) != len(encoded.input_ids):
        raise PluginError(f"{where}: expected one label per token")
    if sum(map(operator.eq, labels, encoded.input_ids)) + labels.count(IGNORE_INDEX) == len(labels):
        return
    for label, token in zip(labels, encoded.input_ids, strict=True):
        if label not in (token, IGNORE_INDEX):
            raise PluginError(f"{where}: label {label!r} is neither the token's id {token} nor {IGNORE_INDEX}")


def fit(
    prepared: Prepared, max_length: int | None, overlong: Overlong, most: Callable[[], int | None] = lambda: None
) -> None:
    """Apply the maximal length to the examples; see `prepare`.

    Args:
        prepared: changed in place.
        max_length, overlong: see `prepare`.
        most: tells the most tokens that `max_length` may be, for the hint; None: no limit.

    Raises:
        DistillError: rows are too long and `overlong` is `error`.
    """
    lengths = prepared.examples.lengths
    if max_length is None or not (lengths > max_length).any():
        return
    if overlong == "error":
        raise too_long(prepared.examples, max_length, most())
    kept = lengths <= max_length
    dropped: list[Skipped] = []
    if overlong == "truncate":
        cut = prepared.examples.cut(max_length)
        kept = cut.trained > 0
        prepared.truncated = int((kept & (lengths > max_length)).sum())
    for row in (~kept).nonzero()[0]:
        reason = f"no trained token within --max-length {max_length}"
        if overlong == "drop":
            reason = f"{lengths[row]} tokens, more than --max-length {max_length}"
        _skip(dropped, prepared.examples[int(row)], reason, "overlong")
    prepared.examples = (cut if overlong == "truncate" else prepared.examples).select(kept.nonzero()[0])
    if prepared.expanded_rows and dropped:
        dropped = _settle(dropped, prepared.examples, prepared.findings)
    prepared.skipped += dropped


def _settle(skipped: Sequence[Skipped], examples: Iterable[Example], findings: Findings) -> list[Skipped]:
    """Count each skipped row once; a row of which another answer is trained becomes a finding instead."""
    trained = {(example.id, str(example.source or "?")) for example in examples}
    once: dict[tuple[str, str], Skipped] = {}
    for row in skipped:
        if (row.id, row.source) in trained:
            findings.add("answer-left-out", row.source, row.reason)
        else:
            once.setdefault((row.id, row.source), row)
    return list(once.values())
