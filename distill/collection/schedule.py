"""Asks a teacher many things at once: workers, retries, and an orderly stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from distill.collection.adapters import Asker
from distill.collection.budget import OutOfMoney
from distill.collection.conversation import Conversation
from distill.collection.evidence import Evidence
from distill.collection.outage import Outage, spoken
from distill.collection.rate_limit import Throttle
from distill.errors import DistillError, TeacherError
from distill.files.signals import kept_handlers
from distill.types import Answer

FIRST_WAIT = 0.5
"""Seconds before the first retry; doubled with each further one."""

LONGEST_BACKOFF = 60.0
"""Seconds between retries at most, where the server does not say how long to wait."""

LONG_WAIT = 10.0
"""Seconds without a request from which on the user is told why."""

GRACE = 5.0
"""Seconds that answers in flight have after the first Ctrl-C or SIGTERM."""

FREE_MOVES = 5
"""How often a row may fail at one of several servers without using up a try: perhaps it is the row that fails them."""

log = logging.getLogger("distill")


class TooEarly(TeacherError):
    """The teacher's limit lasts longer than the user's patience (exit code 75, as `EX_TEMPFAIL`): run again later."""

    exit_code = 75


class Recorder(Protocol):
    """Where finished rows go. An error it raises stops the run."""

    def save(self, conversation: Conversation) -> None:
        """Keep a finished conversation."""

    def fail(self, conversation: Conversation, error: DistillError) -> None:
        """Keep what is known of a conversation that found no end."""


class Pool:
    """The workers. Make one inside the event loop, and `run` it once.

    Args:
        jobs: what to ask, read lazily; None for a row that needs no asking.
        askers: one per worker.
        size: how many conversations each worker holds at a time.
        retries: how often a failed request is retried.
        recorder: is told of each row's end.
        throttle: the rate limiter and concurrency gate.
        patience: seconds to wait for a server that went away, or for a limit to end.
        evidence: weighs failures against answers.

    Attributes:
        requests: how many requests were sent.
        error: what stopped the run before its end; None if nothing did.
        signum: the signal that stopped the run; None if none did.
        servers: what the teacher tells of its servers at the end.
    """

    def __init__(
        self,
        jobs: Iterator[Conversation | None],
        askers: Sequence[Asker],
        size: int,
        retries: int,
        recorder: Recorder,
        throttle: Throttle,
        patience: float = 0.0,
        evidence: Evidence | None = None,
    ):
        self._jobs, self._askers, self._size, self._retries, self._recorder = jobs, askers, size, retries, recorder
        self._throttle = throttle
        self._patience, self._evidence = patience, evidence or Evidence()
        self._outage = Outage(patience)
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0
        self._refusals = 0  # 429 and the like, one after the other
        self._warned = False
        self._tasks: list[asyncio.Task[None]] = []
        self.requests = 0
        self.servers: dict[str, Mapping[str, int]] = {}
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
        """Ask when rate, concurrency and budget allow it; None where nothing may be sent any more."""
        requests = [conversation.request() for conversation in active]
        try:
            ticket = await self._throttle.enter(requests)
        except OutOfMoney as error:
            self._stop(error)
            return None
        if ticket is None:
            return None
        probe = await self._outage.wait()
        if self._throttle.closed:
            self._throttle.leave(ticket, (), ())
            return None
        self.requests += len(requests)
        self._in_flight += len(requests)
        try:
            for conversation in active:
                conversation.probing = probe
            answers = await asker.ask(requests)
        finally:
            self._in_flight -= len(requests)
            if probe:
                self._outage.probed()
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

    def _settle(self, conversation: Conversation, outcome: Answer | DistillError) -> float | None:
        """Deal with one outcome: gives the seconds to wait before the next request, or None at the row's end."""
        if isinstance(outcome, Answer):
            return self._take(conversation, outcome)
        if not isinstance(outcome, TeacherError):
            return self._give_up(conversation, outcome)
        if outcome.elsewhere and conversation.moves < FREE_MOVES:
            conversation.moves += 1
            return 0.0
        if not (outcome.unreachable or outcome.down):
            self._outage.answered()
        if self._evidence.fatal(outcome):
            self._stop(outcome)
        if self._throttle.closed and (outcome.fatal or outcome.retryable):
            return 0.0  # the run is stopping, and not because of this row: the next run asks again
        if self._is_away(conversation, outcome):
            return 0.0
        if self._evidence.may_retry(outcome) and self._may_retry(conversation, outcome):
            return self._wait_before_retry(conversation, outcome)
        return self._give_up(conversation, outcome)

    def _take(self, conversation: Conversation, answer: Answer) -> float | None:
        """Take an answer: the conversation is finished, or continues with its next turn."""
        self._refusals = 0
        self._outage.answered()
        try:
            conversation.take(answer)
        except TeacherError as error:
            if error.retryable and self._may_retry(conversation, error):
                return self._wait_before_retry(conversation, error)
            return self._give_up(conversation, error, paid=True)
        self._evidence.answer()
        if not conversation.done:
            return 0.0
        self._recorder.save(conversation)
        return None

    def _give_up(self, conversation: Conversation, error: DistillError, *, paid: bool = False) -> float | None:
        """Set a row apart, and stop the run where it is one too many."""
        stops = self._evidence.against(conversation.id, error, paid=paid)
        if isinstance(error, TeacherError) and error.unreachable and not self._evidence.answered:
            stops = error  # there is no such server: this row was not refused by it
        if stops is not None:
            self._stop(stops)
            if not paid and isinstance(error, TeacherError) and error.retryable:
                return 0.0
        self._recorder.fail(conversation, error)
        return None

    def _is_away(self, conversation: Conversation, error: TeacherError) -> bool:
        """Whether the server is away: the row waits, and pays nothing."""
        try:
            proven = self._evidence.answered > 0
            return self._outage.explains(error, conversation.id, proven=proven, probing=conversation.probing)
        except TeacherError as too_long:
            self._stop(too_long)
            return True

    def _may_retry(self, conversation: Conversation, error: TeacherError) -> bool:
        progress = self._evidence.answered > conversation.progress
        conversation.progress = self._evidence.answered
        if (error.throttled or error.retry_after is not None) and progress and self._retries:
            return True  # a rate limit that lets others pass is no failure of this row: it waits for its turn
        conversation.attempts += 1
        return conversation.attempts <= self._retries

    def _wait_before_retry(self, conversation: Conversation, error: TeacherError) -> float:
        if error.unreachable and not self._warned:
            self._warned = True
            log.warning("%s; trying again", error.message)
        if error.retry_after is not None and error.retry_after > max(self._patience, LONGEST_BACKOFF):
            self._stop(_too_early(error))
        elif error.throttled or error.retry_after is not None:
            self._throttle.hold(self._wait_of_all(error))
        else:
            return _backoff(conversation.attempts) * random.uniform(0.75, 1.25)
        return 0.0

    def _wait_of_all(self, error: TeacherError) -> float:
        """Seconds without a request, after the server reported that it is overloaded or limits the rate."""
        first = not self._throttle.held  # the others were sent before the gate closed
        self._refusals += first
        wait = _backoff(min(self._refusals, 8)) if error.retry_after is None else error.retry_after
        if first and wait >= LONG_WAIT:
            log.warning("%s; nobody asks for %s", error.message, spoken(wait))
        return wait

    def _stop(self, error: Exception) -> None:
        """Send no more requests; answers in flight may still arrive."""
        self.error = self.error or error
        self._close()

    def _close(self) -> None:
        self._throttle.close()
        self._outage.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While the loop runs, the first signal stops the run in order, and the second at once."""
        with kept_handlers() as handlers:
            for number in handlers:
                self._loop.add_signal_handler(number, self._interrupt, number)
            try:
                yield
            finally:
                for number in handlers:
                    self._loop.remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        if self.signum is not None:
            self._cancel()
            return
        self.signum = number
        self._close()
        if self._in_flight:
            log.warning("stopping: %d answers may come within %g s; once more to stop at once", self._in_flight, GRACE)
        self._loop.call_later(GRACE, self._cancel)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _backoff(attempts: int) -> float:
    """Seconds to wait before retry number `attempts`."""
    return float(min(FIRST_WAIT * 2 ** (attempts - 1), LONGEST_BACKOFF))


def _too_early(error: TeacherError) -> TooEarly:
    """The error for a limit that lasts too long to wait for; its hint gives the time to run the command again."""
    seconds = error.retry_after or 0.0
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))
    hint = f"run the same command again at {at}, in {spoken(seconds)}"
    return TooEarly(error.message, hint, retry_after=seconds, fatal=True)
