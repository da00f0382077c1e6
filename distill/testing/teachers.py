"""The conformance suite of teachers, a scripted teacher, and server faults to try a teacher on."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from distill.collection.adapters import make_askers
from distill.errors import DistillError, PluginError, TeacherError
from distill.protocols import BatchFileTeacher, BatchTeacher, Teacher
from distill.testing.checks import Check, Remark, assert_all
from distill.testing.server import Asked, FaultyServer, Reply
from distill.transcripts.rows import message_to_dict
from distill.types import Answer, Message, Params, Request

QUESTIONS = ("Say hello.", "Say it in Spanish.", "Say goodbye.")
"""What a teacher is asked by default."""

MAX_TOKENS = 16


class ScriptedTeacher:
    """A teacher that gives the answers it was made with, in turn, and keeps what it was asked.

    Args:
        script: texts, whole Answers, or exceptions to raise; after the last one it begins again.

    Attributes:
        asked: the requests, in order.
        closed: whether `close` was called.
    """

    def __init__(self, script: Sequence[str | Answer | Exception] = ("an answer",)):
        self._script = script
        self.asked: list[Request] = []
        self.closed = False

    async def ask(self, request: Request) -> Answer:
        """Give the next answer of the script."""
        said = self._script[len(self.asked) % len(self._script)]
        self.asked.append(request)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Answer) else Answer(Message("assistant", said))

    def close(self) -> None:
        """Note that the collection has ended."""
        self.closed = True


def check_teacher(teacher: Teacher | BatchTeacher, *, questions: Sequence[str] = QUESTIONS) -> None:
    """Hold a teacher to its contract. It is asked the `questions`, one request each, and closed.

    Args:
        teacher: as the spec's `build` gives it.
        questions: what to ask; each answer may cost money.

    Raises:
        AssertionError: names each broken promise, the question, and what to do.
    """
    assert_all(teacher_checks(teacher, questions=questions))


def teacher_checks(teacher: Teacher | BatchTeacher, questions: Sequence[str] = QUESTIONS) -> list[Check]:
    """The checks of `check_teacher`, one by one; without questions only those that ask nothing."""
    suite = _Suite(teacher, questions)
    free = [Check("it has `ask`, or `ask_batch` and a batch_size", suite.shape)]
    if any(hasattr(teacher, name) for name in ("batch_request", "batch_answer")):
        free.append(Check("its requests and answers go through batch files", suite.batch_files))
    if not questions:
        return free
    return [
        *free,
        Check("it answers each request with an Answer by the assistant", suite.answered),
        Check("an answer has text, or calls a tool", suite.something),
        Check("an answer can be written as a row of JSON", suite.writable),
        Check("it can be closed", suite.closed),
    ]


@dataclass
class _Suite:
    """One teacher and what it answered; it is asked once, by the first check that needs to know."""

    teacher: Teacher | BatchTeacher
    questions: Sequence[str]
    _closing: BaseException | None = field(default=None, init=False)

    @cached_property
    def answers(self) -> list[Answer | DistillError]:
        """The answer, or the error, to each question."""
        return asyncio.run(self._ask())

    async def _ask(self) -> list[Answer | DistillError]:
        params = Params(max_tokens=MAX_TOKENS)
        requests = [Request([Message("user", question)], params=params) for question in self.questions]
        askers, size = make_askers(self.teacher, "the plugin", len(requests))
        batches = [requests[n : n + size] for n in range(0, len(requests), size)]
        # As a collection does it: many requests in flight, but one batch at a time.
        if isinstance(self.teacher, BatchTeacher):
            answered = [await askers[0].ask(batch) for batch in batches]
        else:
            answered = await asyncio.gather(*[asker.ask(one) for asker, one in zip(askers, batches, strict=True)])
        try:
            closing = self.teacher.close() if hasattr(self.teacher, "close") else None
            if inspect.isawaitable(closing):
                await closing
        except Exception as error:
            self._closing = error
        return [answer for batch in answered for answer in batch]

    def shape(self) -> None:
        make_askers(self.teacher, "the plugin", 1)

    def batch_files(self) -> None:
        teacher = self.teacher
        assert isinstance(teacher, BatchFileTeacher), "it has only one of `batch_request` and `batch_answer`"
        question = Request([Message("user", QUESTIONS[0])], params=Params(max_tokens=MAX_TOKENS))
        line = dict(teacher.batch_request("row-1", question))
        assert line.get("custom_id") == "row-1", f"batch_request gives custom_id={line.get('custom_id')!r}, not the id"
        json.dumps(line, allow_nan=False)
        try:
            answer = teacher.batch_answer({"custom_id": "row-1"})
        except TeacherError:
            return
        raise AssertionError(f"batch_answer gives {answer!r} for a line without an answer; raise distill.TeacherError")

    def answered(self) -> None:
        for question, answer in zip(self.questions, self.answers, strict=True):
            if isinstance(answer, PluginError):
                raise AssertionError(f"{question!r}: {answer.message}; a failed request raises distill.TeacherError")
            assert not isinstance(answer, DistillError), f"{question!r}: {answer}{_hint(answer)}"

    def _good(self) -> list[tuple[str, Answer]]:
        pairs = zip(self.questions, self.answers, strict=True)
        good = [(question, answer) for question, answer in pairs if isinstance(answer, Answer)]
        if not good:
            raise Remark("there is no answer to look at")
        return good

    def something(self) -> None:
        for question, answer in self._good():
            said = (answer.message.content or "").strip() or answer.message.tool_calls or answer.message.refusal
            cut = answer.finish_reason == "length"  # within so few tokens a model may not have got past thinking
            assert said or cut, f"{question!r}: the answer is empty; raise distill.TeacherError where there is none"

    def writable(self) -> None:
        for question, answer in self._good():
            assert isinstance(answer.finish_reason, (str, type(None))), f"{question!r}: finish_reason is no text"
            assert isinstance(answer.usage, Mapping), f"{question!r}: usage is a {type(answer.usage).__name__}"
            try:
                json.dumps([message_to_dict(answer.message), dict(answer.usage), answer.model], allow_nan=False)
            except (TypeError, ValueError) as error:
                raise AssertionError(f"{question!r}: {error}; put plain JSON values into Answer") from None

    def closed(self) -> None:
        assert self.answers is not None and self._closing is None, f"close() raised {self._closing!r}"


def _hint(error: DistillError) -> str:
    return f" ({error.hint})" if error.hint else ""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What a server does, and what a careful teacher raises for it."""

    name: str
    reply: Reply
    retryable: bool | None = None
    fatal: bool | None = None
    retry_after: float | None = None


_ERROR = {"error": {"message": "no", "type": "error"}}

_FAULTS = (
    _Fault("429 with Retry-After: 7", Reply(_ERROR, 429, {"Retry-After": "7"}), retryable=True, retry_after=7.0),
    _Fault("500", Reply(_ERROR, 500), retryable=True, fatal=False),
    _Fault("503 without a body", Reply(b"", 503), retryable=True, fatal=False),
    _Fault("401", Reply(_ERROR, 401), retryable=False, fatal=True),
    _Fault("404", Reply(_ERROR, 404), retryable=False, fatal=True),
    _Fault("400", Reply(_ERROR, 400), retryable=False),
    _Fault("a connection that is reset", Reply(reset=True), retryable=True, fatal=False),
    _Fault("an answer that is cut in the middle", Reply({"text": "x" * 99}, cut=20), retryable=True, fatal=False),
    _Fault("broken JSON", Reply(b'{"message": {"con'), fatal=None),
    _Fault("a web page", Reply(b"<html>hello</html>", headers={"Content-Type": "text/html"})),
    _Fault("a list instead of an object", Reply([])),
    _Fault("an object without an answer", Reply({"answer": 42})),
    _Fault("nulls everywhere", Reply({"message": None, "choices": None, "content": None})),
)


def check_http_teacher(build: Callable[[str], Teacher], good: Callable[[Asked], Any]) -> None:
    """Try a teacher that asks a server on one that answers well, and on one with every common fault.

    Args:
        build: makes the teacher for the server's address, `http://127.0.0.1:PORT`.
        good: what a server of this kind answers to a request: a value to send as JSON.

    Raises:
        AssertionError: names the faults that the teacher takes for something else, and what to raise.
    """
    with FaultyServer(good=lambda asked: Reply(good(asked))) as server:
        check_teacher(build(server.origin))
    assert_all([Check(f"the server answers with {fault.name}", partial(_try, build, fault)) for fault in _FAULTS])
    assert_all([Check("a server elsewhere that the server redirects to", lambda: _redirected(build))])
    assert_all([Check("no server", lambda: _nobody(build))])


def _try(build: Callable[[str], Teacher], fault: _Fault) -> None:
    with FaultyServer([fault.reply]) as server:
        error = _error_of(build(server.origin))
        assert len(server.asked) == 1, f"it asked {len(server.asked)} times; asking again is the collector's part"
    for flag in ("retryable", "fatal", "retry_after"):
        wanted, got = getattr(fault, flag), getattr(error, flag)
        assert wanted is None or got == wanted, f"{error.message!r} has {flag}={got}; it should be {wanted}"


def _redirected(build: Callable[[str], Teacher]) -> None:
    with FaultyServer() as other, FaultyServer([Reply(b"", 302, {"Location": f"{other.origin}/x"})]) as server:
        _error_of(build(server.origin))
        assert not other.asked, "it follows redirects, and so sends the prompt, and the key, to another server"


def _nobody(build: Callable[[str], Teacher]) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        error = _error_of(build(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert error.retryable and error.unreachable, f"{error.message!r} should have retryable=True and unreachable=True"


def _error_of(teacher: Teacher) -> TeacherError:
    (answer,) = _Suite(teacher, QUESTIONS[:1]).answers
    assert isinstance(answer, TeacherError), f"{answer!r} instead of a distill.TeacherError"
    assert answer.message and "\n" not in answer.message, f"the message {answer.message!r} is not one line"
    return answer
