"""Asks a teacher many things at once: retries, one door for all workers, and an orderly stop."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from distill.collection.adapters import Asker
from distill.collection.budget import OutOfMoney
from distill.collection.conversation import Conversation
from distill.collection.rate_limit import Throttle
from distill.errors import DistillError, TeacherError
from distill.types import Answer

FIRST_WAIT = 0.5
"""Seconds before the first retry; doubled with each further one."""

LONGEST_WAIT = 60.0
"""Seconds between retries at most, whatever the server asks for."""

LONG_WAIT = 10.0
"""Seconds without a request from which on the user is told why."""

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
        throttle: says when a request may go.

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
        throttle: Throttle,
    ):
        self._jobs, self._askers, self._size, self._retries, self._recorder = jobs, askers, size, retries, recorder
        self._throttle = throttle
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._answered = 0
        self._refusals = 0  # 429 and the like, one after the other
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
        while not self._throttle.closed:
            await self._top_up(active)
            answers = await self._ask(asker, active) if active else None
            if answers is None:
                break
            waits = [self._settle(*pair) for pair in zip(active, answers, strict=True)]
            active = [one for one, wait in zip(active, waits, strict=True) if wait is not None]
            await self._throttle.pause(max((wait for wait in waits if wait is not None), default=0.0))
        for conversation in active:
            if conversation.answers:  # keep what was paid for, where the user can find it
                self._recorder.fail(conversation, TeacherError("the run was stopped in the middle of the conversation"))

    async def _ask(self, asker: Asker, active: Sequence[Conversation]) -> list[Answer | DistillError] | None:
        """Ask when there is room, time and money for it; None where nothing may be asked any more."""
        requests = [conversation.request() for conversation in active]
        try:
            ticket = await self._throttle.enter(requests)
        except OutOfMoney as error:
            self._stop(error)
            return None
        if ticket is None:
            return None
        self.requests += len(requests)
        self._in_flight += len(requests)
        try:
            answers = await asker.ask(requests)
        finally:
            self._in_flight -= len(requests)
        self._throttle.leave(ticket, requests, answers)
        return answers

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
            self._given_up = self._refusals = 0
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
            elif not self._throttle.closed and self._may_retry(conversation, answer):
                return self._wait_before_retry(conversation, answer)
            elif not self._throttle.closed and not self._is_down(answer):
                self._recorder.fail(conversation, answer)
                return None
            return 0.0  # the run is stopping, and not because of this row: the next run asks again
        self._recorder.fail(conversation, answer)
        return None

    def _may_retry(self, conversation: Conversation, error: TeacherError) -> bool:
        progress = self._answered > conversation.progress
        conversation.progress = self._answered
        if (error.throttled or error.retry_after is not None) and progress and self._retries:
            return True  # a rate limit that lets others pass is no failure of this row: it waits for its turn
        conversation.attempts += 1
        return conversation.attempts <= self._retries

    def _wait_before_retry(self, conversation: Conversation, error: TeacherError) -> float:
        if error.unreachable and not self._warned:
            self._warned = True
            log.warning("%s; trying again", error.message)
        if error.throttled or error.retry_after is not None:
            self._throttle.hold(self._wait_of_all(error))
            return 0.0
        return _backoff(conversation.attempts) * random.uniform(0.75, 1.25)

    def _wait_of_all(self, error: TeacherError) -> float:
        """Seconds that nobody asks, after the server said that it is asked too much."""
        first = not self._throttle.held  # the others were sent before the door closed
        self._refusals += first
        wait = _backoff(min(self._refusals, 8)) if error.retry_after is None else min(error.retry_after, LONGEST_WAIT)
        if first and wait >= LONG_WAIT:
            log.warning("%s; nobody asks for %.0f s", error.message, wait)
        return wait

    def _is_down(self, error: TeacherError) -> bool:
        """Whether this row, given up after all its retries, shows that the teacher is down; stops the run then."""
        self._given_up += 1
        if error.unreachable and not self._answered:
            self._stop(error)
        elif self._given_up >= HOPELESS:
            self._stop(
                TeacherError(f"gave up after {HOPELESS} rows failed one after the other: {error.message}", error.hint)
            )
        return self._throttle.closed

    def _stop(self, error: Exception) -> None:
        """Send nothing any more; what is in flight may come."""
        self.error = self.error or error
        self._throttle.close()

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
        self._throttle.close()
        if self._in_flight:
            log.warning("stopping: %d answers may come within %g s; once more to stop at once", self._in_flight, GRACE)
        self._loop.call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _backoff(attempts: int) -> float:
    """Seconds before the so-manieth try."""
    return min(FIRST_WAIT * 2 ** (attempts - 1), LONGEST_WAIT)
