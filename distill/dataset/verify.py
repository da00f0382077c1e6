"""The label proof: before anything is trained, every trained answer is read back from its own tokens and labels.

The engine and the labelers should make each of these errors impossible. The proof does not trust them: it looks at
what comes out, knows nothing of how it was made, and holds for a plugin's formats and labelers as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distill.dataset.findings import Findings
from distill.encode.encoder import Encoder, text_of
from distill.errors import DistillError
from distill.types import IGNORE_INDEX, Encoded, Message, Segment, Transcript


class _Read(NamedTuple):
    """An answer to read back: its tokens but for the end marker, and the text that they should give."""

    ids: list[int]
    text: str
    where: str
    turn: int


@dataclass(slots=True)
class Proof:
    """Proves labelled conversations, and keeps what it finds.

    Args:
        encoder: the one they were encoded with.
        findings: filled by `examine` and `finish`.
    """

    encoder: Encoder
    findings: Findings = field(default_factory=Findings)
    _answers: list[_Read] = field(default_factory=list)
    _added_prompt: str = ""
    _unknown: int | None = None

    def __post_init__(self) -> None:
        self._added_prompt = added_system_prompt(self.encoder)
        self._unknown = self.encoder.tokenizer.unk_token_id

    def examine(
        self,
        transcript: Transcript,
        turns: Collection[int],
        segments: Sequence[Segment],
        encoded: Encoded,
        labels: Sequence[int],
    ) -> None:
        """Prove one conversation.

        Args:
            transcript: where it is from.
            turns: the assistant turns that shall be trained.
            segments: as it was rendered.
            encoded: as it was encoded.
            labels: as the labeler gave them, and after `weight: 0` was applied.
        """
        where = str(transcript.source or transcript.id)
        ids, add = encoded.input_ids, self.findings.add
        self._controls(transcript, segments, ids, where)
        if self._added_prompt and transcript.messages[0].role != "system":
            add("system-prompt-added", where, self._added_prompt)
        written: dict[int, list[Segment]] = {turn: [] for turn in turns}
        for part in segments:
            if part.turn in written and not part.end_of_turn:
                written[part.turn].append(part)
        inside = 0
        for turn, parts in written.items():
            start, end = _stretch_of(encoded.turn, turn)
            inside += self._answer(turn, encoded, labels, start, end, where)
            stop = end - sum(encoded.end_of_turn[start:end])
            self._answers.append(_Read(ids[start:stop], text_of(parts), where, turn))
            if transcript.messages[turn].reasoning_content and not any(part.reasoning for part in parts):
                add("reasoning-left-out", where, f"message {turn}")
        if len(labels) - labels.count(IGNORE_INDEX) != inside:
            self._outside(turns, encoded, labels, where)

    def _controls(self, transcript: Transcript, segments: Sequence[Segment], ids: Sequence[int], where: str) -> None:
        """As many control tokens as the template's own text has: none came from a message."""
        found = sum(map(self.encoder.control_ids.__contains__, ids))
        unknown = self._unknown
        if found != sum(self.encoder.count_controls(part.text) for part in segments if not part.content):
            if unknown is not None and unknown in self.encoder.control_ids and unknown in ids:
                self.findings.add("unknown-token", where)
            else:
                self.findings.add("control-from-content", where)
        elif unknown is not None and unknown not in self.encoder.control_ids and unknown in ids:
            self.findings.add("unknown-token", where)
        for turn, message in enumerate(transcript.messages):
            if message.content and self.encoder.holds_control(message.content):
                said = text_of([part for part in segments if part.content and part.turn == turn])
                # The format must have said that this text is the message's, and not its own.
                inside = self._holds(said, message.content) or not any(part.turn == turn for part in segments)
                self.findings.add("control-text" if inside else "control-from-content", where, f"message {turn}")
                break

    def _holds(self, said: str, content: str) -> bool:
        """Whether a rendered text is a message's: as it is, or its words, as they stand or as JSON (tool results)."""
        answer = content.rpartition("</think>")[2]  # templates cut off what comes before, or frame it themselves
        words = self.encoder.without_controls(answer).split()
        forms = [(word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1]) for word in words]
        return content.strip() in said or bool(forms and all(any(form in said for form in word) for word in forms))

    def _answer(self, turn: int, encoded: Encoded, labels: Sequence[int], start: int, end: int, where: str) -> int:
        """Prove one answer's labels; returns how many of its tokens are trained."""
        add, ids, given = self.findings.add, encoded.input_ids[start:end], labels[start:end]
        ends = encoded.end_of_turn[start:end]
        if ids and ends[-1] and ids[-1] != self.encoder.stop:
            add("end-is-not-eos", where, f"message {turn}")
        trained = len(given) - given.count(IGNORE_INDEX)
        if given == ids:
            if not any(ends):
                add("end-not-trained", where, f"message {turn} has none")
        elif not trained:
            add("untrained-answer", where, f"message {turn}")
        else:
            without = [n for n, label in enumerate(given) if label == IGNORE_INDEX]
            if all(ends[n] for n in without):
                add("end-not-trained", where, f"message {turn}")
            elif all(encoded.reasoning[start + n] for n in without):
                add("untrained-reasoning", where, f"message {turn}")
            else:
                add("partial-answer", where, f"message {turn}: {trained} of {len(ids)} tokens")
        return trained

    def _outside(self, turns: Collection[int], encoded: Encoded, labels: Sequence[int], where: str) -> None:
        """Something outside of the answers is trained."""
        outside = [
            n
            for n, (label, turn) in enumerate(zip(labels, encoded.turn, strict=True))
            if label != IGNORE_INDEX and turn not in turns
        ]
        foreign = [n for n in outside if encoded.turn[n] >= 0]
        everything = all(
            label != IGNORE_INDEX or (wrote and turn not in turns)  # an answer of weight 0 is left out
            for label, wrote, turn in zip(labels, encoded.assistant_mask, encoded.turn, strict=True)
        )
        if any(encoded.assistant_mask[n] for n in foreign):
            self.findings.add("prompt-trained", where, "an answer that shall not be trained")
        elif everything:
            self.findings.add("all-trained", where)
        elif foreign:
            self.findings.add("prompt-trained", where, f"message {encoded.turn[foreign[0]]}")
        else:
            self.findings.add("template-trained", where)

    def finish(self) -> Findings:
        """Read the answers back that were examined so far, in one batch."""
        backend = self.encoder.tokenizer.backend_tokenizer
        texts = backend.decode_batch([answer.ids for answer in self._answers], skip_special_tokens=False)
        for answer, text in zip(self._answers, texts, strict=True):
            if text != answer.text:
                # A tokenizer that normalizes gives no text back as it was; then its own round trip is the measure.
                lossy = self.encoder.round_trip(answer.text) != answer.text
                code = "text-changed" if lossy else "wrong-answer"
                detail = f"message {answer.turn}: {answer.text[:60]!r} → {text[:60]!r}"
                self.findings.add(code, answer.where, detail)
        self._answers.clear()
        return self.findings


def _stretch_of(turns: Sequence[int], turn: int) -> tuple[int, int]:
    """Where a turn's tokens are: they stand together."""
    size = turns.count(turn)
    start = turns.index(turn) if size else 0
    return start, start + size


def added_system_prompt(encoder: Encoder) -> str:
    """The system prompt that the format writes into a conversation without one; empty where it writes none."""
    ask, say = Message("user", "a"), Message("assistant", "b")
    try:
        segments = encoder.segments([ask, say, ask, say])
    except DistillError:
        return ""
    first = next(n for n, part in enumerate(segments) if part.turn == 0)
    again = next(n for n, part in enumerate(segments) if part.turn == 2)
    after = max(n for n, part in enumerate(segments[:again]) if part.turn == 1) + 1
    before, between = text_of(segments[:first]), text_of(segments[after:again])
    same = 0
    while same < min(len(before), len(between)) and before[-1 - same] == between[-1 - same]:
        same += 1
    words = encoder.without_controls(before[: len(before) - same]).split()
    return " ".join(words[words[:1] == ["system"] :]) if len(words) > 2 else ""
