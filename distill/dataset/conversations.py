"""Conversations as they were read, whatever the student: the order of roles, duplicates, leaks of held-out prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from distill.dataset.findings import Findings
from distill.transcripts.digest import answer_digest, messages_digest, prompt_digest
from distill.transcripts.reasoning import has_thinking_tags
from distill.types import Source, Transcript

if TYPE_CHECKING:
    import pyarrow as pa

_DIGEST_SIZE = 16
_FREQUENT = 10  # answers that are named
_SHORT_EXAMPLE = 20  # characters of an example that only the teacher sees


def describe(transcripts: Sequence[Transcript], findings: Findings) -> pa.RecordBatch:
    """Look at conversations one by one, and keep what is needed to compare them with others.

    Args:
        transcripts: as they were read.
        findings: unusual orders of roles are added to it.

    Returns:
        A row per conversation: `file` and `line`, the digests `conversation` and `prompt`, and `answers`, those of its
        answers.
    """
    import pyarrow as pa

    for transcript in transcripts:
        if strange := _strange_order([message.role for message in transcript.messages]):
            findings.add("role-order", transcript.source, strange)
        if transcript.messages and transcript.messages[-1].role == "user":
            findings.add("ends-on-user", transcript.source)
        answers = (message.content for message in transcript.messages if message.role == "assistant")
        if any(answer and has_thinking_tags(answer) for answer in answers):
            findings.add("thinking-in-answer", transcript.source)
        if shown := _teacher_prompt_in(transcript):
            findings.add("teacher-prompt", transcript.source, shown)
    sources = [transcript.source or Source("?", 0) for transcript in transcripts]
    digest = pa.binary(_DIGEST_SIZE)
    columns = {
        "file": pa.array([source.file for source in sources], pa.string()),
        "line": pa.array([source.line for source in sources], pa.int32()),
        "conversation": pa.array([messages_digest(one.messages) for one in transcripts], digest),
        "prompt": pa.array([prompt_digest(one) for one in transcripts], digest),
        "answers": pa.array(
            [[answer_digest(text) for text in answers_of(one)] for one in transcripts], pa.list_(digest)
        ),
    }
    return pa.record_batch(columns)


def compare(conversations: pa.Table, held_out: Mapping[bytes, str], findings: Findings) -> None:
    """Find conversations that appear twice, and prompts that are held out.

    Args:
        conversations: the rows of `describe`.
        held_out: digests of the held-out prompts, and where each appears.
        findings: filled.
    """
    seen: dict[bytes, str] = {}
    for batch in conversations.to_batches():
        columns = (batch.column(name).to_pylist() for name in ("file", "line", "conversation", "prompt"))
        for file, line, conversation, prompt in zip(*columns, strict=True):
            where = f"{file}:{line}"
            first = seen.setdefault(conversation, where)
            if first != where:
                findings.add("duplicate", where, f"as {first}")
            if prompt in held_out:
                findings.add("leakage", where, f"as {held_out[prompt]}")


def answers_of(transcript: Transcript) -> list[str]:
    """The texts of a conversation's answers; those that hold nothing but tool calls have none."""
    answers = (message.content for message in transcript.messages if message.role == "assistant")
    return [answer for answer in answers if answer and answer.strip()]


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often answers are word for word the same.

    Attributes:
        answers: all answers.
        repeated: those that an earlier one has said already.
        frequent: the answers that were given most often, at least twice: digest → number.
    """

    answers: int = 0
    repeated: int = 0
    frequent: Mapping[bytes, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The fraction of the answers that repeat an earlier one."""
        return self.repeated / self.answers if self.answers else 0.0


def count_repeats(conversations: pa.Table) -> Repeats:
    """Count the answers that are word for word the same.

    Args:
        conversations: the rows of `describe`.
    """
    import pyarrow.compute as pc

    answers = pc.list_flatten(conversations.column("answers"))
    counted = pc.value_counts(answers)
    values, counts = counted.field("values"), counted.field("counts")
    order = pc.sort_indices(counts, sort_keys=[("", "descending")])[:_FREQUENT]
    most = zip(values.take(order).to_pylist(), counts.take(order).to_pylist(), strict=True)
    return Repeats(len(answers), len(answers) - len(counted), {digest: count for digest, count in most if count > 1})


def prompts_of(transcripts: Iterable[Transcript]) -> dict[bytes, str]:
    """The prompts of held-out conversations: their digests, and where each appears first."""
    found: dict[bytes, str] = {}
    for transcript in transcripts:
        found.setdefault(prompt_digest(transcript), str(transcript.source))
    return found


def _teacher_prompt_in(transcript: Transcript) -> str:
    """What only the teacher should see and the student does: where it is; empty where it is nowhere.

    Short examples are left out: a question such as `dog?` may be asked for its own sake.
    """
    hidden = transcript.metadata.get("teacher_messages")
    for message in hidden if isinstance(hidden, list) else ():
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str) or not text.strip():
            continue
        if message.get("role") != "system" and len(text.strip()) < _SHORT_EXAMPLE:
            continue
        for number, said in enumerate(transcript.messages):
            if any(text.strip() in part for part in (said.content, said.reasoning_content) if part):
                return f"message {number} ({said.role})"
    return ""


def _strange_order(roles: Sequence[str]) -> str:
    """What is unusual about the order of the roles; empty for a conversation that takes turns."""
    if "system" in roles[1:]:
        return f"message {roles.index('system', 1)}: a system message that is not the first"
    talk = [role for role in roles if role != "system"]
    if talk and talk[0] != "user":
        return f"it starts with the {talk[0]}"
    for number, (one, other) in enumerate(pairwise(roles)):
        if one == other and one != "tool":
            return f"messages {number} and {number + 1} are both by the {one}"
    return ""
