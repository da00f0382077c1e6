"""From a transcript's log probabilities to what a student is trained towards, checked before anything is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from distill.encode.encoder import Encoder
from distill.errors import DataError
from distill.soft_labels.align import (
    EXACT,
    NONE,
    Alignment,
    Zone,
    align,
    align_same,
    find_zones,
    map_candidates,
    mend_pieces_of_characters,
    no_alignment,
)
from distill.soft_labels.plausibility import implausible
from distill.soft_labels.rows import AnswerLogprobs, read_logprobs
from distill.soft_labels.vocabulary import Vocabulary
from distill.types import IGNORE_INDEX, Encoded, Segment, SoftTargets, Transcript

if TYPE_CHECKING:
    import numpy as np

Found = Callable[[str, str], None]
"""Told each finding: its code, and a detail."""


@dataclass(slots=True)
class SoftShares:
    """What the trained tokens of a data set have of a teacher.

    Attributes:
        rows, plain_rows: examples with soft targets; those whose answers are plain samples (`SoftTargets.plain`).
        missing: examples whose transcript has no log probabilities.
        trained: trained tokens of all examples, those without soft targets too.
        exact, chunk: how many of them are exact, or part of a chunk.
        candidates: exact tokens with likeliest tokens.
        mass: sum over these of the probability of the likeliest tokens that the student has ids for.
    """

    rows: int = 0
    plain_rows: int = 0
    missing: int = 0
    trained: int = 0
    exact: int = 0
    chunk: int = 0
    candidates: int = 0
    mass: float = 0.0

    def add(self, other: SoftShares) -> None:
        """Take in the counts of other examples."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def count(self, labels: Sequence[int], soft: SoftTargets | None) -> None:
        """Count one example."""
        import numpy as np

        self.trained += sum(label != IGNORE_INDEX for label in labels[1:])
        if soft is None:
            return
        self.rows += 1
        self.plain_rows += soft.plain
        self.exact += int((soft.kind == EXACT).sum())
        self.chunk += int((soft.kind > EXACT).sum())
        told = (soft.ids >= 0).any(axis=1)
        self.candidates += int(told.sum())
        self.mass += float(np.minimum(np.nansum(np.exp(soft.logprobs[told].astype(np.float64)), axis=1), 1).sum())

    @property
    def none(self) -> int:
        """Trained tokens that have no teacher."""
        return self.trained - self.exact - self.chunk

    @property
    def mean_mass(self) -> float | None:
        """Mean probability of the likeliest tokens together, where there are any."""
        return self.mass / self.candidates if self.candidates else None

    def __str__(self) -> str:
        parts = [("exact", self.exact), ("chunk", self.chunk), ("none", self.none)]
        shares = ", ".join(f"{name} {self.fraction(count):.1%}" for name, count in parts)
        mass = "" if self.mean_mass is None else f"; the likeliest tokens have {self.mean_mass:.1%} of the probability"
        return f"teacher's tokens: {shares} of {self.trained} trained tokens{mass}"

    def as_dict(self) -> dict[str, float | None]:
        """The shares as `check --json` prints them."""
        return {
            "rows": self.rows,
            "plain_rows": self.plain_rows,
            "exact": self.fraction(self.exact),
            "chunk": self.fraction(self.chunk),
            "none": self.fraction(self.none),
            "mean_mass": self.mean_mass,
        }

    def fraction(self, count: int) -> float:
        """A number of tokens as a fraction of the trained ones."""
        return count / self.trained if self.trained else 0.0


class SoftLabeler:
    """Lays the teacher's log probabilities over a student's tokens.

    Args:
        encoder: the student's, with its chat format.
        vocabularies: other tokenizers, by fingerprint, whose ids rows may hold.
    """

    def __init__(self, encoder: Encoder, vocabularies: Mapping[str, Vocabulary] | None = None):
        self._encoder = encoder
        self._stop = encoder.stop
        self._others = dict(vocabularies or {})
        self._tables: dict[str, np.ndarray] = {}

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        """The student's; made when the first row has log probabilities."""
        return Vocabulary(self._encoder.tokenizer, self._encoder.control_ids)

    def targets(
        self,
        transcript: Transcript,
        turns: Collection[int],
        segments: Sequence[Segment],
        encoded: Encoded,
        labels: Sequence[int],
        found: Found,
    ) -> SoftTargets | None:
        """Make an example's soft targets.

        Args:
            transcript: with `metadata.logprobs`.
            turns: the assistant turns that are trained.
            segments, encoded, labels: the example, rendered, encoded and labelled.
            found: told what is wrong with the log probabilities; nothing of such an answer is a target.

        Returns:
            The targets; None where no answer has any.
        """
        try:
            answers = {turn: answer for turn, answer in read_logprobs(transcript).items() if turn in turns}
        except DataError as error:
            found("logprobs-malformed", error.message)
            return None
        parts: list[tuple[int, Alignment, AnswerLogprobs]] = []
        for turn, answer in sorted(answers.items()):
            if reason := implausible(answer):
                found("logprobs-shifted", f"message {turn}: {reason}")
                continue
            start, end = _stretch_of(encoded.turn, turn)
            pieces = [part for part in segments if part.turn == turn and not part.end_of_turn]
            message = transcript.messages[turn]
            made = self._align(
                answer,
                [(part.text, part.content) for part in pieces],
                encoded.input_ids[start:end],
                sum(encoded.end_of_turn[start:end]),
                (message.reasoning_content or "").strip().encode(),
                bool(message.tool_calls),
            )
            if isinstance(made, Alignment):
                parts.append((start, made, answer))
            else:
                found(made, f"message {turn}")
        return self._assemble(parts, encoded.input_ids, labels) if parts else None

    def _align(
        self,
        answer: AnswerLogprobs,
        pieces: Sequence[tuple[str, bool]],
        ids: Sequence[int],
        ends: int,
        reasoning: bytes,
        calls: bool,
    ) -> Alignment | str:
        """Align one answer.

        Args:
            answer: the teacher's log probabilities.
            pieces: the student's rendering, its end-of-turn marker left out.
            ids: the student's tokens, the marker included.
            ends: how many of the last of them are the marker.
            reasoning, calls: see `find_zones`.

        Returns:
            The alignment; or the code of what is wrong.
        """
        body = len(ids) - ends
        student = self._vocabulary.bytes_of(ids[:body])
        text = "".join(text for text, _ in pieces)
        if not _spell(student, text.encode()):
            return no_alignment(len(ids))  # a tokenizer that changes text: reported as `text-changed` already
        written = len(answer.tokens) - answer.end
        if answer.origin.tokenizer == self._vocabulary.fingerprint and self._disagrees(answer, written):
            return "logprobs-other-tokenizer"
        lead = next((n for n, (_, content) in enumerate(pieces) if content), len(pieces))
        before = len("".join(text for text, _ in pieces[:lead]).encode())
        if (made := self._align_ids(answer, ids, body, before)) is not None:
            return made
        content = "".join(text for text, content in pieces if content)
        teacher = mend_pieces_of_characters(answer.tokens[:written], content.encode())
        said = b"".join(teacher)
        zones = find_zones(pieces, said, reasoning=reasoning, calls=calls)
        if zones is None:
            return "logprobs-other-text"
        made = align(teacher, answer.logprobs[:written], [*student, *[b""] * ends], zones)
        if ends and answer.end == 1 and ids[body] == self._stop and _reaches(zones, text, said):
            made.kind[body], made.size[body] = EXACT, 1
            made.logprob[body], made.place[body] = answer.logprobs[written], written
        return made

    def _align_ids(self, answer: AnswerLogprobs, ids: Sequence[int], body: int, before: int) -> Alignment | None:
        """Align an answer whose tokens are the student's, the format's own among them.

        Args:
            answer, ids: see `_align`.
            body: how many of the ids come before the end-of-turn marker.
            before: the bytes that the format writes before the message's own: the teacher need not have them.

        Returns:
            The alignment; None where the tokens differ.
        """
        stop = body
        if answer.end == 1 and self._stop in ids[body:]:
            stop = ids.index(self._stop, body) + 1
        count = len(answer.tokens) - (answer.end if stop == body else 0)
        start = stop - count
        if answer.ids is None or answer.origin.tokenizer != self._vocabulary.fingerprint or start < 0:
            return None
        if sum(map(len, self._vocabulary.bytes_of(ids[:start]))) > before:
            return None
        if answer.ids[:count].tolist() != list(ids[start:stop]):
            return None
        return align_same(answer.logprobs[:count], start, len(ids))

    def _disagrees(self, answer: AnswerLogprobs, written: int) -> bool:
        """Whether the ids do not stand for the tokens' bytes in the tokenizer that they are said to belong to."""
        if answer.ids is None:
            return False
        ours = self._vocabulary.bytes_of(answer.ids[:written].tolist())
        pairs = zip(ours, answer.tokens[:written], strict=True)
        return any(mine != theirs for mine, theirs in pairs if theirs)  # a special token leaves no trace in a text

    def _assemble(
        self, parts: Sequence[tuple[int, Alignment, AnswerLogprobs]], ids: Sequence[int], labels: Sequence[int]
    ) -> SoftTargets:
        """Put the answers of an example together."""
        import numpy as np

        count = len(ids)
        kind, size = np.zeros(count, np.int8), np.zeros(count, np.int16)
        logprob = np.full(count, np.nan, np.float32)
        trained = np.array(labels) != IGNORE_INDEX
        trained[:1] = False
        k = max(answer.top_ids.shape[1] for _, _, answer in parts)
        all_ids, all_values = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
        for start, made, answer in parts:
            here = slice(start, start + len(made.kind))
            kind[here], size[here], logprob[here] = made.kind, made.size, made.logprob
            _drop_untrained(kind, size, logprob, trained, here)
            exact = (kind[here] == EXACT).nonzero()[0]
            label = np.array(ids[here], np.int32)[exact]
            top, values = self._candidates(answer, made.place[exact], label)
            pad = ((0, 0), (0, k - top.shape[1]))
            all_ids.append(np.pad(top, pad, constant_values=-1))
            all_values.append(np.pad(values, pad, constant_values=np.nan))
        plain = all(answer.origin.sampled_plainly for _, _, answer in parts)
        return SoftTargets(kind, size, logprob, np.concatenate(all_ids), np.concatenate(all_values), plain)

    def _candidates(
        self, answer: AnswerLogprobs, places: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest tokens at the teacher's places, as the student's ids."""
        import numpy as np

        table = self._table(answer)
        top_ids = answer.top_ids[places]
        ids, values = map_candidates(top_ids, table, answer.top_logprobs[places])
        if answer.ids is not None:  # the written token is the label, whichever id of its bytes a table names
            written = (top_ids == answer.ids[places][:, None]) & (top_ids >= 0)
            ids = np.where(written, labels[:, None], ids)
            values = np.where(written, answer.top_logprobs[places], values)
        order = np.argsort(ids < 0, axis=1, kind="stable")  # those that have no id of the student's go last
        return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)

    def _table(self, answer: AnswerLogprobs) -> np.ndarray:
        """What the teacher's candidates are among the student's ids; control tokens by their role only."""
        import numpy as np

        if answer.vocabulary is not None:
            marker = answer.tokens[-1] if answer.end == 1 else None
            known = [self._stop if token == marker else self._vocabulary.id_of(token) for token in answer.vocabulary]
            return np.array(known, np.int32)
        name = answer.origin.tokenizer or ""
        if name not in self._tables:
            self._tables[name] = self._table_of(name)
        table = self._tables[name]
        ends = [id for id in answer.origin.end_ids if id < len(table)]
        if ends:
            table = table.copy()
            table[ends] = self._stop
        return table

    def _table_of(self, fingerprint: str) -> np.ndarray:
        """The student's id for each id of a tokenizer; all -1 where that tokenizer is not at hand."""
        import numpy as np

        own = self._vocabulary
        if fingerprint == own.fingerprint:
            return np.where(own.canonical >= 0, np.arange(len(own.canonical)), -1).astype(np.int32)
        other = self._others.get(fingerprint)
        if other is None:
            return np.full(1 << 18, -1, np.int32)
        return np.array([own.id_of(octets) for octets in other.bytes_of(range(other.size))], np.int32)


def _stretch_of(turns: Sequence[int], turn: int) -> tuple[int, int]:
    """Where a turn's tokens are: they are next to each other."""
    size = turns.count(turn)
    start = turns.index(turn) if size else 0
    return start, start + size


def _spell(tokens: list[bytes], text: bytes) -> bool:
    """Whether tokens give a text; a space that SentencePiece puts before it is taken off, in place."""
    joined = b"".join(tokens)
    if tokens and joined != text and joined == b" " + text:
        tokens[0] = tokens[0][1:]
        return True
    return joined == text


def _reaches(zones: Sequence[Zone], text: str, teacher: bytes) -> bool:
    """Whether both texts end together: only then are their end-of-turn markers at one place."""
    return zones[-1].end == len(text.encode()) and zones[-1].end + zones[-1].shift == len(teacher)


def _drop_untrained(kind: np.ndarray, size: np.ndarray, logprob: np.ndarray, trained: np.ndarray, here: slice) -> None:
    """Take out, in place, what is not trained, and every chunk that holds such a token."""
    lost = (kind[here] != NONE) & ~trained[here]
    if not lost.any():
        return
    for stop in (size[here] > 0).nonzero()[0] + here.start:
        start = stop - int(size[stop]) + 1
        if not trained[start : stop + 1].all():
            kind[start : stop + 1], size[stop], logprob[stop] = NONE, 0, float("nan")
    kind[here][~trained[here]] = NONE
