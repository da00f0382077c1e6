"""Asks a teacher many things at once: retries, one gate for all workers, and an orderly stop."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from distill.collect.askers import Asker
from distill.collect.conversation import Conversation
from distill.errors import DistillError, TeacherError
from distill.types import Answer

FIRST_WAIT = 0.5
"""Seconds before the first retry; doubled with each further one."""

LONGEST_WAIT = 60.0
"""Seconds between retries at most, whatever the server asks for."""

GRACE = 5.0
"""Seconds that answers in flight have after the first Ctrl-C or SIGTERM."""

HOPELESS = 10
"""So many rows given up one after the other, retries and all, mean that the teacher is down."""

log = logging.getLogger("distill")


class Recorder(Protocol):
    """Where finished rows go. An error it raises stops the run."""

    def save(self, conversation: Conversation) -> None:
        """Keep a finished conversation."""

    def fail(self, conversation: Conversation, error: DistillError) -> None:
        """Keep what is known of a conversation that found no end."""


class Pool:
    """The workers. Make one inside the event loop, and `run` it once.

    Args:
        jobs: what to ask, read lazily; None stands for a row that needs no asking.
        askers: one a worker.
        size: how many conversations each worker holds at a time.
        retries: how often a failed request is sent again.
        recorder: is told of each row's end.

    Attributes:
        requests: how many requests were sent.
        error: what stopped the run before its end; None if nothing did.
        signum: the signal that stopped the run; None if none did.
    """

    def __init__(
        self,
        jobs: Iterator[Conversation | None],
        askers: Sequence[Asker],
        size: int,
        retries: int,
        recorder: Recorder,
    ):
        self._jobs, self._askers, self._size, self._retries, self._recorder = jobs, askers, size, retries, recorder
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._gate = 0.0  # the loop's time before which nobody asks
        self._in_flight = 0
        self._answered = 0
        self._given_up = 0  # rows, one after the other
        self._warned = False
        self._tasks: list[asyncio.Task] = []
        self.requests = 0
        self.error: Exception | None = None
        self.signum: int | None = None

    async def run(self) -> None:
        """Ask everything, or stop early and say why in `error` or `signum`."""
        self._tasks = [asyncio.create_task(self._guarded(asker)) for asker in self._askers]
        with self._signals():
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for asker in self._askers:
            asker.close()

    async def _guarded(self, asker: Asker) -> None:
        try:
            await self._work(asker)
        except Exception as error:  # a full disk, a prompt file that changed, or a bug: collect() raises it
            self._stop(error)

    async def _work(self, asker: Asker) -> None:
        active: list[Conversation] = []
        while not self._stopping.is_set():
            await self._top_up(active)
            await self._pass_gate()
            if not active or self._stopping.is_set():
                break
            self.requests += len(active)
            self._in_flight += len(active)
            try:
                answers = await asker.ask([conversation.request() for conversation in active])
            finally:
                self._in_flight -= len(active)
            waits = [self._settle(*pair) for pair in zip(active, answers, strict=True)]
            active = [one for one, wait in zip(active, waits, strict=True) if wait is not None]
            await self._pause(max((wait for wait in waits if wait is not None), default=0.0))
        for conversation in active:
            if conversation.answers:  # keep what was paid for, where the user can find it
                self._recorder.fail(conversation, TeacherError("the run was stopped in the middle of the conversation"))

    async def _top_up(self, active: list[Conversation]) -> None:
        while len(active) < self._size:
            try:
                conversation = next(self._jobs)
            except StopIteration:
                return
            if conversation is not None:
                active.append(conversation)
            else:
                await asyncio.sleep(0)  # thousands of rows may need no asking: let the others work

    def _settle(self, conversation: Conversation, answer: Answer | DistillError) -> float | None:
        """Deal with one answer: gives the seconds to wait before the next request, or None at the row's end."""
        if isinstance(answer, Answer):
            self._answered += 1
            self._given_up = 0
            try:
                conversation.take(answer)
            except TeacherError as error:
                self._recorder.fail(conversation, error)
                return None
            if conversation.done:
                self._recorder.save(conversation)
                return None
            return 0.0
        if isinstance(answer, TeacherError) and (answer.fatal or answer.retryable):
            if answer.fatal:
                self._stop(answer)
            elif not self._stopping.is_set() and self._may_retry(conversation, answer):
                return self._wait_before_retry(conversation, answer)
            elif not self._stopping.is_set() and not self._is_down(answer):
                self._recorder.fail(conversation, answer)
                return None
            return 0.0  # the run is stopping, and not because of this row: the next run asks again
        self._recorder.fail(conversation, answer)
        return None

    def _may_retry(self, conversation: Conversation, error: TeacherError) -> bool:
        progress = self._answered > conversation.progress
        conversation.progress = self._answered
        if error.retry_after is not None and progress and self._retries:
            return True  # a rate limit that lets others pass is no failure of this row: it waits for its turn
        conversation.attempts += 1
        return conversation.attempts <= self._retries

    def _wait_before_retry(self, conversation: Conversation, error: TeacherError) -> float:
        if error.unreachable and not self._warned:
            self._warned = True
            log.warning("%s; trying again", error.message)
        if error.retry_after is not None:
            self._gate = max(self._gate, self._loop.time() + min(error.retry_after, LONGEST_WAIT))
            return 0.0
        return min(FIRST_WAIT * 2 ** (conversation.attempts - 1), LONGEST_WAIT) * random.uniform(0.75, 1.25)

    def _is_down(self, error: TeacherError) -> bool:
        """Whether this row, given up after all its retries, shows that the teacher is down; stops the run then."""
        self._given_up += 1
        if error.unreachable and not self._answered:
            self._stop(error)
        elif self._given_up >= HOPELESS:
            self._stop(
                TeacherError(f"gave up after {HOPELESS} rows failed one after the other: {error.message}", error.hint)
            )
        return self._stopping.is_set()

    async def _pass_gate(self) -> None:
        while (left := self._gate - self._loop.time()) > 0 and not self._stopping.is_set():
            await self._pause(left + random.uniform(0, 0.1 * left))  # spread out: not all at once when it opens

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the run's end."""
        if seconds > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    def _stop(self, error: Exception) -> None:
        """Send nothing any more; what is in flight may come."""
        self.error = self.error or error
        self._stopping.set()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While the loop runs, the first signal stops the run in order, and the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
        for number in handlers:
            self._loop.add_signal_handler(number, self._interrupt, number)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                self._loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _interrupt(self, number: int) -> None:
        if self.signum is not None:
            self._cancel()
            return
        self.signum = number
        self._stopping.set()
        if self._in_flight:
            log.warning("stopping: %d answers may come within %g s; once more to stop at once", self._in_flight, GRACE)
        self._loop.call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
