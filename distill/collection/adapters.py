"""Adapters that give every teacher one async interface, `await ask(requests)`, with its answers checked."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from distill.errors import DataError, DistillError, PluginError, TeacherError, one_line
from distill.files.jsonl import dumps
from distill.files.text import clean_surrogates
from distill.protocols import BatchTeacher, Teacher
from distill.types import Answer, Message, Request


class Asker:
    """Adapter that gives a teacher one async interface, for one worker.

    Args:
        teacher: what the plugin built.
        owner: the plugin, as errors name it.
    """

    def __init__(self, teacher: Teacher | BatchTeacher, owner: str):
        self._owner = owner
        self._batch = isinstance(teacher, BatchTeacher)
        self._function: Callable[[Any], Any] = teacher.ask_batch if isinstance(teacher, BatchTeacher) else teacher.ask
        self._thread = None if inspect.iscoroutinefunction(self._function) else DaemonThread()

    async def ask(self, requests: Sequence[Request]) -> list[Answer | DistillError]:
        """Ask; raises only when it is cancelled.

        Args:
            requests: one; or up to `batch_size` for a BatchTeacher.

        Returns:
            An Answer per request, or its error.
        """
        answers: Any
        try:
            answers = await self._ask(requests if self._batch else requests[0])
            if not self._batch:
                answers = [answers]
            elif not isinstance(answers, Sequence) or len(answers) != len(requests):
                got = len(answers) if isinstance(answers, Sequence) else f"a {type(answers).__name__}"
                raise PluginError(f"{self._owner}: asked for {len(requests)} answers, ask_batch returned {got}")
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: one row of a plugin must not end the run
            answers = [error] * len(requests)
        return [checked(answer, self._owner) for answer in answers]

    async def _ask(self, what: Any) -> Any:
        answer = self._function(what) if self._thread is None else await self._thread.call(self._function, what)
        return await answer if inspect.isawaitable(answer) else answer

    def close(self) -> None:
        """Let the thread end, if there is one."""
        if self._thread is not None:
            self._thread.close()


def make_askers(teacher: Teacher | BatchTeacher, owner: str, concurrency: int) -> tuple[list[Asker], int]:
    """Make an adapter for each worker.

    Args:
        teacher: what the plugin built.
        owner: the plugin, as errors name it.
        concurrency: workers of a teacher that answers one request at a time; a BatchTeacher has one.

    Returns:
        The adapters, and how many requests each takes at once.

    Raises:
        PluginError: the teacher has neither `ask` nor `ask_batch`.
    """
    if isinstance(teacher, BatchTeacher):
        size = teacher.batch_size
        if not isinstance(size, int) or size < 1:
            raise PluginError(f"{owner}: the teacher's batch_size is {size!r}, not a number from 1 up")
        return [Asker(teacher, owner)], size
    if not isinstance(teacher, Teacher):
        raise PluginError(f"{owner}: its teacher, a {type(teacher).__name__}, has neither `ask` nor `ask_batch`")
    return [Asker(teacher, owner) for _ in range(concurrency)], 1


def checked(answer: Any, owner: str) -> Answer | DistillError:
    """Check an answer.

    Returns:
        An Answer in order, with text that can be written; or the error, with the plugin's name where it is to blame.
    """
    if isinstance(answer, (TeacherError, DataError, PluginError)):
        return answer
    if isinstance(answer, DistillError):  # the set-up is wrong (no such model, …): no row will fare better
        return TeacherError(answer.message, answer.hint, fatal=True)
    if isinstance(answer, BaseException):
        return PluginError(f"{owner} failed: {one_line(answer)}")
    if not isinstance(answer, Answer):
        return PluginError(f"{owner} returned a {type(answer).__name__}, not an Answer")
    given: Any = answer.message
    if not isinstance(given, Message) or given.role != "assistant":
        return PluginError(f"{owner} returned an Answer whose message is no assistant message")
    message: Any = given
    if not isinstance(message.content, (str, type(None))):
        return PluginError(f"{owner} returned an Answer whose content is a {type(message.content).__name__}, not text")
    reasoning = (message.reasoning_content, message.reasoning_details)
    texts = (message.content, *reasoning, message.refusal, message.tool_calls, answer.logprobs)
    try:
        dumps({"texts": texts, "usage": answer.usage}).encode()
    except UnicodeEncodeError:
        return _without_surrogates(answer)
    except (TypeError, ValueError, RecursionError):  # no JSON: it fails when its row is written
        pass
    usage: Any = answer.usage
    reason: Any = answer.finish_reason
    if isinstance(usage, Mapping) and isinstance(reason, (str, type(None))):
        return answer
    return Answer(
        answer.message,
        None if reason is None else str(reason),
        usage if isinstance(usage, Mapping) else {},
        answer.model,
        answer.logprobs,
    )


def _without_surrogates(answer: Answer) -> Answer:
    message = answer.message
    cleaned = replace(
        message,
        content=clean_surrogates(message.content),
        reasoning_content=clean_surrogates(message.reasoning_content),
        refusal=clean_surrogates(message.refusal),
        tool_calls=tuple(clean_surrogates(message.tool_calls)),
        reasoning_details=tuple(clean_surrogates(message.reasoning_details)),
    )
    usage, logprobs = clean_surrogates(answer.usage or {}), clean_surrogates(answer.logprobs)
    return replace(answer, message=cleaned, usage=usage, logprobs=logprobs)


_Call: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Future[_Outcome], Callable[..., Any], tuple[Any, ...]]"
_Outcome: TypeAlias = "tuple[Any, BaseException | None]"


class DaemonThread:
    """A thread that makes calls one after the other.

    Unlike an executor's thread it does not hold up the end of the program, so that an interrupted run can end while
    a teacher is still busy.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started = False

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the function in the thread, and give what it returns or raises."""
        if not self._started:
            threading.Thread(target=self._work, daemon=True).start()
            self._started = True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome] = loop.create_future()
        self._calls.put((loop, future, function, args))
        returned, error = await future
        if error is not None:
            raise error
        return returned

    def close(self) -> None:
        """Let the thread end after its present call."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, function, args = call
            outcome: _Outcome
            try:
                outcome = function(*args), None
            except BaseException as error:
                outcome = None, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
                loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
