"""The label check: before anything is trained, every trained answer is read back from its own tokens and labels.

The engine and the labelers should make each of these errors impossible. The check does not trust them: it examines
only their output, so that it covers the formats and labelers of plugins as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from distill.dataset.findings import Findings
from distill.encode.chat_rendering import render_chat
from distill.encode.encoder import Encoder, text_of
from distill.encode.tokenizer import default_template
from distill.errors import DataError, DistillError
from distill.types import IGNORE_INDEX, Encoded, Message, Segment, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class _Answer(NamedTuple):
    """An answer to decode: its tokens without the end-of-turn marker, and the text that they should give."""

    ids: list[int]
    text: str
    where: str
    turn: int


@dataclass(slots=True)
class LabelCheck:
    """Checks labelled conversations and collects the findings.

    Args:
        encoder: the one that encoded them.
        findings: filled by `examine` and `finish`.
    """

    encoder: Encoder
    findings: Findings = field(default_factory=Findings)
    _answers: list[_Answer] = field(default_factory=list)
    _added_prompt: str = ""
    _unknown: int | None = None
    _writes_date: bool = False

    def __post_init__(self) -> None:
        self._added_prompt = added_system_prompt(self.encoder)
        self._unknown = self.encoder.tokenizer.unk_token_id
        self._writes_date = writes_date(self.encoder.tokenizer)

    def examine(
        self,
        transcript: Transcript,
        turns: Collection[int],
        segments: Sequence[Segment],
        encoded: Encoded,
        labels: Sequence[int],
    ) -> None:
        """Check one conversation.

        Args:
            transcript: the conversation.
            turns: the indexes of the assistant messages to train.
            segments: the conversation, rendered.
            encoded: the conversation, encoded.
            labels: the labeler's, after `weight: 0` was applied.
        """
        where = str(transcript.source or transcript.id)
        ids, add = encoded.input_ids, self.findings.add
        self._controls(transcript, segments, ids, where)
        if self._added_prompt and transcript.messages[0].role != "system":
            add("system-prompt-added", where, self._added_prompt)
        if self._writes_date:
            add("date-in-prompt", where)
        if self.encoder.tokenizer.pad_token_id in self.encoder.stops:
            add("pad-is-eos", where)
        written: dict[int, list[Segment]] = {turn: [] for turn in turns}
        for part in segments:
            if part.turn in written and not part.end_of_turn:
                written[part.turn].append(part)
        inside = 0
        for turn, parts in written.items():
            start, end = _stretch_of(encoded.turn, turn)
            inside += self._answer(turn, encoded, labels, start, end, where)
            stop = end - sum(encoded.end_of_turn[start:end])
            self._answers.append(_Answer(ids[start:stop], text_of(parts), where, turn))
            if _has_reasoning(transcript.messages[turn]) and not any(part.reasoning for part in parts):
                add("reasoning-left-out", where, f"message {turn}")
        if len(labels) - labels.count(IGNORE_INDEX) != inside:
            self._outside(turns, encoded, labels, where)
        if self._changed_ids(transcript, segments):
            add("call-id-changed", where)

    def _controls(self, transcript: Transcript, segments: Sequence[Segment], ids: Sequence[int], where: str) -> None:
        """Count control tokens: there must be no more than in the template's own text."""
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
                # The format must have declared this text as the message's, not as its own.
                inside = self._holds(said, message.content) or not any(part.turn == turn for part in segments)
                self.findings.add("control-text" if inside else "control-from-content", where, f"message {turn}")
                break

    def _changed_ids(self, transcript: Transcript, segments: Sequence[Segment]) -> bool:
        """Whether the format shows tool call ids, but not those of this conversation."""
        ids = {str(call["id"]) for message in transcript.messages for call in message.tool_calls if "id" in call}
        if not ids or not self.encoder.shows_call_ids:
            return False
        text = text_of(segments)
        return any(id not in text for id in ids)

    def _holds(self, said: str, content: str) -> bool:
        """Whether a rendered text holds a message: unchanged, or word by word, plain or as JSON (tool results)."""
        answer = content.rpartition("</think>")[2]  # templates cut off what comes before, or frame it themselves
        words = self.encoder.without_controls(answer).split()
        forms = [(word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1]) for word in words]
        return content.strip() in said or bool(forms and all(any(form in said for form in word) for word in forms))

    def _answer(self, turn: int, encoded: Encoded, labels: Sequence[int], start: int, end: int, where: str) -> int:
        """Check one answer's labels; returns the number of its trained tokens."""
        add, ids, given = self.findings.add, encoded.input_ids[start:end], labels[start:end]
        ends = encoded.end_of_turn[start:end]
        if ids and ends[-1] and ids[-1] not in self.encoder.stops:
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
        """Report trained tokens outside the answers."""
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
            self.findings.add("prompt-trained", where, "an answer that is not to be trained")
        elif everything:
            self.findings.add("all-trained", where)
        elif foreign:
            self.findings.add("prompt-trained", where, f"message {encoded.turn[foreign[0]]}")
        else:
            self.findings.add("template-trained", where)

    def finish(self) -> Findings:
        """Decode all answers examined so far, in one batch, and compare them with their texts."""
        backend = self.encoder.tokenizer.backend_tokenizer
        texts = backend.decode_batch([answer.ids for answer in self._answers], skip_special_tokens=False)
        for answer, text in zip(self._answers, texts, strict=True):
            if text != answer.text:
                # A tokenizer that normalizes does not reproduce text; then its own round trip is the reference.
                lossy = self.encoder.round_trip(answer.text) != answer.text
                code = "text-changed" if lossy else "wrong-answer"
                detail = f"message {answer.turn}: {answer.text[:60]!r} → {text[:60]!r}"
                self.findings.add(code, answer.where, detail)
        self._answers.clear()
        return self.findings


def _has_reasoning(message: Message) -> bool:
    """Whether a message has reasoning, apart or in `<think>…</think>` before its content."""
    return bool(message.reasoning_content) or "</think>" in (message.content or "")


def _stretch_of(turns: Sequence[int], turn: int) -> tuple[int, int]:
    """Where a message's tokens start and end: they are contiguous."""
    size = turns.count(turn)
    start = turns.index(turn) if size else 0
    return start, start + size


def writes_date(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer's chat template writes today's date into a prompt."""
    template = default_template(tokenizer)
    if template is None or "strftime_now" not in template:
        return False
    prompts = []
    for today in ("1", "2"):
        clock = f"{{% macro strftime_now(format) %}}{today}{{% endmacro %}}"
        try:
            asked = [{"role": "user", "content": "a"}]
            prompts.append(render_chat(tokenizer, asked, add_generation_prompt=True, template=clock + template))
        except DataError:
            return False
    return bool(prompts[0] != prompts[1])


def added_system_prompt(encoder: Encoder) -> str:
    """The system prompt that the format adds to a conversation without one; empty where it adds none."""
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
