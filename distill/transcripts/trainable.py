"""Why a conversation, or one answer of it, cannot be trained or compared with."""

from __future__ import annotations

from typing import NamedTuple

from distill.transcripts.finish import Finish, finish_of, finish_reason_in, tells_of_calls
from distill.types import Message, Transcript


class Untrainable(NamedTuple):
    """A reason: the code of its finding (see `distill.dataset.findings`), and the reason in words."""

    code: str
    reason: str


def untrainable(transcript: Transcript) -> Untrainable | None:
    """Why nothing of a conversation can be trained; None where something can."""
    if broken := _broken_off(transcript):
        return broken
    answers = [message for message in transcript.messages if message.role == "assistant"]
    if not answers:
        return Untrainable("no-answer", "no assistant message")
    if not any(message.train for message in answers):
        return Untrainable("weight-0", "every assistant message has weight 0")
    return None


def untrainable_answer(message: Message) -> Untrainable | None:
    """Why an answer cannot be trained; None where it can."""
    if (message.content or "").strip() or message.tool_calls:
        return None
    if message.refusal:
        return Untrainable("refused-answer", "the answer is a refusal")
    return Untrainable("empty-answer", "the answer is empty")


def _broken_off(transcript: Transcript) -> Untrainable | None:
    """Why the last answer is not known to be whole, by its finish reason."""
    reason = finish_reason_in(transcript.metadata)
    finish = finish_of(reason)
    if finish is Finish.CUT:
        return Untrainable("cut-answer", "the answer was cut at the teacher's length limit")
    if finish is Finish.REFUSED:
        return Untrainable("refused-answer", f"the answer was refused or filtered (finish reason {reason!r})")
    if finish is Finish.UNKNOWN:
        return Untrainable("unknown-finish", f"the answer may not be whole: its finish reason is {reason!r}")
    if tells_of_calls(reason) and not any(message.tool_calls for message in transcript.messages):
        return Untrainable("unknown-finish", f"the finish reason {reason!r} tells of tool calls, and there are none")
    return None
