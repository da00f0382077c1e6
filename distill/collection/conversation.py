"""One prompt becoming one transcript: request, answer, next request, …"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distill.errors import TeacherError
from distill.transcripts.finish import Finish, finish_of, tells_of_calls
from distill.transcripts.reasoning import is_only_thinking
from distill.types import Answer, Message, Params, Prompt, Request

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


class Conversation:
    """What has been said so far, and what is to be asked next.

    Args:
        id: the row's id.
        prompt: what to ask.
        sample: which of several answers to the same prompt.
        params: how to ask; sample `n` is asked with `seed + n`.

    Attributes:
        answers: the teacher's messages so far.
        usage: the token counts of all turns, added up.
        finish_reason: of the last answer.
        model: the model id as last answered.
        logprobs: of each answer, as `Answer.logprobs` holds them.
        attempts: how many tries the next request has used up.
        moves: how often it was asked elsewhere, for nothing.
        progress: how many answers the whole run had when it last failed.
        probing: whether its request is a probe of a server that went away.
        done: whether nothing is left to ask.
    """

    def __init__(self, id: str, prompt: Prompt, sample: int, params: Params):
        self.id = id
        self.prompt = prompt
        self.sample = sample
        self.params = params if params.seed is None else replace(params, seed=params.seed + sample)
        self.messages: list[Message] = list(prompt.messages)
        self.answers: list[Message] = []
        self.usage: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.logprobs: list[Mapping[str, Any] | Sequence[Any] | None] = []
        self.attempts = 0
        self.moves = 0
        self.progress = 0
        self.probing = False
        self.done = False

    @property
    def cut(self) -> bool:
        """Whether the last answer ran into the token limit."""
        return finish_of(self.finish_reason) is Finish.CUT

    @property
    def turns_left(self) -> int:
        """How many user turns have not been asked."""
        return len(self.prompt.followups) + 1 - len(self.answers)

    def request(self) -> Request:
        """The next thing to ask."""
        told = {"sample": self.sample, "turn": len(self.answers)}
        messages = as_teacher_sees(self.prompt.teacher_messages, self.messages)
        return Request(messages, self.prompt.tools, self.params, told)

    def take(self, answer: Answer) -> None:
        """Take the answer to `request()`. A cut answer or one with tool calls ends the conversation.

        Raises:
            TeacherError: it is no answer to learn from: empty, a refusal, or filtered.
        """
        message = answer.message
        self.usage = add_usage(self.usage, answer.usage)
        problem = _problem(answer)
        if problem and problem.retryable:
            raise problem
        self.attempts = self.moves = 0
        self.finish_reason, self.model = answer.finish_reason, answer.model
        self.answers.append(message)
        self.logprobs.append(answer.logprobs)
        self.messages.append(message)
        if problem:
            raise problem
        asked = len(self.answers) - 1
        self.done = self.cut or bool(message.tool_calls) or asked == len(self.prompt.followups)
        if not self.done:
            self.messages.append(self.prompt.followups[asked])


def as_teacher_sees(teacher_messages: Sequence[Message], messages: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation with what only the teacher sees before it; two system messages become one."""
    system = messages[:1] if messages and messages[0].role == "system" else ()
    if not system or not teacher_messages or teacher_messages[0].role != "system":
        return (*system, *teacher_messages, *messages[len(system) :])
    both = f"{teacher_messages[0].content or ''}\n\n{system[0].content or ''}"
    return (Message("system", both), *teacher_messages[1:], *messages[1:])


def _problem(answer: Answer) -> TeacherError | None:
    """Why an answer cannot be learnt from; None where it can."""
    message, finish, reason = answer.message, finish_of(answer.finish_reason), answer.finish_reason
    empty = not (message.tool_calls or (message.content or "").strip(_INVISIBLE).strip())
    if message.refusal:
        return TeacherError(f"the teacher refused: {message.refusal[:200]}")
    if finish is Finish.REFUSED:
        return TeacherError(f"the answer was stopped by a content filter (finish reason {reason!r})")
    if finish is Finish.UNKNOWN and empty:  # nothing that could be set apart: the generation failed
        return TeacherError(f"the answer is empty: its finish reason is {reason!r}", retryable=True, maybe_paid=True)
    if finish is Finish.UNKNOWN:
        return TeacherError(f"the answer may not be whole: its finish reason is {reason!r}")
    if not empty:
        return _incomplete(message, reason) if finish is Finish.WHOLE else None
    if finish is Finish.CUT:
        hint = "raise --max-tokens"
        return TeacherError(f"the answer is empty: the token limit cut it before it began ({hint})", hint)
    return TeacherError("the answer is empty")


def _incomplete(message: Message, reason: str | None) -> TeacherError | None:
    """Why an answer is not whole although its finish reason is a good one; None where it is."""
    if message.tool_calls:
        return next((problem for call in message.tool_calls if (problem := _broken_call(call))), None)
    if tells_of_calls(reason):
        return TeacherError(f"the finish reason {reason!r} tells of tool calls, but the answer has none")
    if is_only_thinking(message.content or ""):
        return TeacherError("the answer is empty: it is nothing but reasoning")
    return None


def _broken_call(call: Mapping[str, Any]) -> TeacherError | None:
    """Why nobody could make a tool call; None where somebody could, or it is of a kind that is not known here."""
    if "function" not in call:
        return None
    function = call["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"].strip():
        return TeacherError("the answer has a tool call without a function name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str) or not arguments.strip():
        return None
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return TeacherError(f"a tool call may not be whole: its arguments are no JSON: {arguments[:100]}")
    return None


def add_usage(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add token counts up, nested ones too; what is no count is taken from `other`."""
    if not one:
        return dict(other)
    total = dict(one)
    for key, value in other.items():
        before = total.get(key)
        if isinstance(value, Mapping):
            total[key] = add_usage(before if isinstance(before, Mapping) else {}, value)
        elif _is_count(value) and _is_count(before):
            total[key] = before + value
        elif value is not None or key not in total:
            total[key] = value
    return total


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
