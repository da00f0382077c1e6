"""Transcripts to labelled examples. Every row that comes in is trained, or skipped with a reason: nothing vanishes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from distill.encode import Encoder, text_of
from distill.errors import DataError, DistillError, PluginError
from distill.plugins import one_line
from distill.protocols import Labeler
from distill.types import IGNORE_INDEX, Encoded, Example, Message, Segment, Transcript

Overlong = Literal["error", "drop", "truncate"]

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained, and why."""

    id: str
    source: str
    reason: str


@dataclass(slots=True)
class Prepared:
    """What `prepare` made of the transcripts.

    Attributes:
        examples: what is trained; more than the trained rows where rows had to be split by turn.
        skipped: the rows that are not trained.
        rows: how many transcripts came in.
        split: how many rows were split into one example an answer, since the template rewrites history.
        truncated: how many examples were cut to the maximal length.
    """

    examples: list[Example] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    rows: int = 0
    split: int = 0
    truncated: int = 0

    @property
    def trained_rows(self) -> int:
        """Rows of which something is trained; with the skipped ones they are all that came in."""
        return self.rows - len(self.skipped)


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
) -> Prepared:
    """Render, encode and label transcripts.

    Args:
        transcripts: read lazily, in batches.
        encoder: for the student and its format.
        labeler: decides which tokens count.
        labeler_name: for errors.
        max_length: the most tokens of an example; None: no limit.
        overlong: what to do with longer ones: refuse, leave the row out, or cut it.

    Raises:
        DistillError: rows are too long and `overlong` is `error`.
        PluginError: the formatter or the labeler broke its contract.
    """
    prepared = Prepared()
    rows = iter(transcripts)
    while chunk := list(islice(rows, _CHUNK)):
        prepared.rows += len(chunk)
        rendered: list[_Rendered] = []
        for transcript in chunk:
            try:
                parts = _render(transcript, encoder)
            except DataError as error:
                _skip(prepared, transcript, error.message)
                continue
            except PluginError as error:
                raise PluginError(f"{transcript.source or transcript.id}: {error.message}") from error
            prepared.split += len(parts) > 1
            rendered += parts
        for part, encoded in _encode(rendered, encoder, prepared):
            _label(part, encoded, labeler, labeler_name, prepared)
    _fit(prepared, max_length, overlong)
    _settle(prepared)
    return prepared


def _skip(prepared: Prepared, row: Transcript | Example, reason: str) -> None:
    prepared.skipped.append(Skipped(row.id, str(row.source or "?"), reason))


def _render(transcript: Transcript, encoder: Encoder) -> list[_Rendered]:
    """Render a transcript whole; or answer by answer, where the template shows history otherwise than at inference.

    Raises:
        DataError: nothing of it can be trained; says why.
    """
    messages, tools = transcript.messages, transcript.tools
    if transcript.metadata.get("finish_reason") == "length":
        raise DataError("the answer was cut at the teacher's length limit")
    answers = [turn for turn, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise DataError("no assistant message")
    turns = [turn for turn in answers if messages[turn].train]
    if not turns:
        raise DataError("every assistant message has weight 0")
    for turn in turns:
        if not (messages[turn].content or "").strip() and not messages[turn].tool_calls:
            raise DataError(f"message {turn}: the answer is empty")
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
    segments: Sequence[Segment], messages: Sequence[Message], turn: int, transcript: Transcript, encoder: Encoder
) -> bool:
    """Whether an answer stands in the rendering as it does at inference: after its prompt, and in the same words.

    Templates that strip the reasoning of earlier turns show an answer otherwise once another turn follows.
    """
    start = next((n for n, segment in enumerate(segments) if segment.turn == turn), None)
    if start is None:
        return False
    prompt = encoder.prompt_segments(messages[:turn], transcript.tools)
    if text_of(prompt) != text_of(segments[:start]):
        return False
    alone = segments if turn == len(messages) - 1 else encoder.segments(messages[: turn + 1], transcript.tools)
    return text_of(_of_turn(segments, turn)) == text_of(_of_turn(alone, turn))


def _of_turn(segments: Sequence[Segment], turn: int) -> list[Segment]:
    return [segment for segment in segments if segment.turn == turn]


def _encode(rendered: Sequence[_Rendered], encoder: Encoder, prepared: Prepared) -> Iterator[tuple[_Rendered, Encoded]]:
    """Encode in one batch; one by one where the batch fails, to find the row."""
    try:
        yield from zip(rendered, encoder.encode_segments([part.segments for part in rendered]), strict=True)
    except DataError:
        for part in rendered:
            try:
                yield part, encoder.encode_segments([part.segments])[0]
            except DataError as error:
                _skip(prepared, part.transcript, error.message)


def _label(part: _Rendered, encoded: Encoded, labeler: Labeler, name: str, prepared: Prepared) -> None:
    transcript = part.transcript
    try:
        labels = labeler.label(encoded)
    except DataError as error:
        _skip(prepared, transcript, f"labeler {name!r}: {error.message}")
        return
    except DistillError:
        raise
    except Exception as error:
        where = transcript.source or transcript.id
        raise PluginError(f"labeler {name!r} failed on {where}: {one_line(error)}") from error
    _check_labels(labels, encoded, name, transcript)
    answers = {turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"}
    labels = [
        IGNORE_INDEX if turn in answers and turn not in part.turns else label
        for label, turn in zip(labels, encoded.turn, strict=True)
    ]
    example = Example(encoded.input_ids, labels, transcript.id, transcript.source)
    if not example.trained_tokens:
        _skip(prepared, transcript, f"labeler {name!r} leaves no token to train")
        return
    prepared.examples.append(example)


def _check_labels(labels: list[int], encoded: Encoded, name: str, transcript: Transcript) -> None:
    where = f"labeler {name!r} on {transcript.source or transcript.id}"
    if not isinstance(labels, list) or len(labels) != len(encoded.input_ids):
        raise PluginError(f"{where}: not one label a token")
    for label, token in zip(labels, encoded.input_ids, strict=True):
        if label not in (token, IGNORE_INDEX):
            raise PluginError(f"{where}: label {label!r} is neither the token's id {token} nor {IGNORE_INDEX}")


def _fit(prepared: Prepared, max_length: int | None, overlong: Overlong) -> None:
    """Apply the maximal length to the examples."""
    lengths = [len(example.input_ids) for example in prepared.examples]
    if max_length is None or all(length <= max_length for length in lengths):
        return
    if overlong == "error":
        raise _too_long(prepared.examples, max_length)
    kept = []
    for example, length in zip(prepared.examples, lengths, strict=True):
        if length <= max_length:
            kept.append(example)
            continue
        cut = replace(example, input_ids=example.input_ids[:max_length], labels=example.labels[:max_length])
        if overlong == "drop":
            _skip(prepared, example, f"{length} tokens, more than --max-length {max_length}")
        elif not cut.trained_tokens:
            _skip(prepared, example, f"no trained token within --max-length {max_length}")
        else:
            prepared.truncated += 1
            kept.append(cut)
    prepared.examples[:] = kept


def _too_long(examples: Sequence[Example], max_length: int) -> DistillError:
    longest = sorted(examples, key=lambda example: -len(example.input_ids))[:3]
    counts = sorted(len(example.input_ids) for example in examples)
    over = sum(length > max_length for length in counts)
    keep = ", ".join(
        f"{counts[min(len(counts) - 1, -(-len(counts) * share // 100) - 1)]} keeps {share} %" for share in (95, 99, 100)
    )
    named = ", ".join(f"{example.source or example.id} ({len(example.input_ids)} tokens)" for example in longest)
    return DistillError(
        f"{over} of {len(counts)} rows are longer than {max_length} tokens; the longest: {named}",
        f"--max-length: {keep}; or --overlong drop, or --overlong truncate",
    )


def _settle(prepared: Prepared) -> None:
    """A row that was split counts as trained when any part of it is; a row is skipped once."""
    trained = {(example.id, str(example.source or "?")) for example in prepared.examples}
    once: dict[tuple[str, str], Skipped] = {}
    for skipped in prepared.skipped:
        if (skipped.id, skipped.source) not in trained:
            once.setdefault((skipped.id, skipped.source), skipped)
    prepared.skipped[:] = once.values()
