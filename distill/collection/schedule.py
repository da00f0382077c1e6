"""Asks a teacher many things at once: workers, retries, and an orderly stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from distill.collection.adapters import Asker
from distill.collection.budget import OutOfMoney
from distill.collection.evidence import Evidence
from distill.collection.outage import Outage, spoken
from distill.collection.rate_limit import Throttle
from distill.errors import DistillError, TeacherError
from distill.files.signals import kept_handlers
from distill.types import Answer, Message, Request

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


class Job(Protocol):
    """What is asked, one request after the other.

    Attributes:
        id: the row's id.
        answers: what came until now.
        attempts: how many tries the next request has used up.
        moves: how often it was asked elsewhere, for nothing.
        progress: how many answers the whole run had when it last failed.
        probing: whether its request is a probe of a server that went away.
        done: whether nothing is left to ask.
        messages: the conversation until now.
    """

    id: str
    messages: list[Message]
    answers: list[Message]
    attempts: int
    moves: int
    progress: int
    probing: bool
    done: bool

    def request(self) -> Request:
        """The next thing to ask."""
        ...

    def take(self, answer: Answer) -> None:
        """Take the answer to `request()`.

        Raises:
            TeacherError: it cannot be used.
        """
        ...


JobT = TypeVar("JobT", bound=Job)
_JobT = TypeVar("_JobT", bound=Job, contravariant=True)


class Recorder(Protocol[_JobT]):
    """Where finished jobs go. An error it raises stops the run."""

    def save(self, job: _JobT, /) -> None:
        """Keep a finished job."""

    def fail(self, job: _JobT, error: DistillError, /) -> None:
        """Keep what is known of a job that found no end."""


class Pool(Generic[JobT]):
    """The workers. Make one inside the event loop, and `run` it once.

    Args:
        jobs: what to ask, read lazily; None for a row that needs no asking.
        askers: one per worker.
        size: how many jobs each worker holds at a time.
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
        jobs: Iterator[JobT | None],
        askers: Sequence[Asker],
        size: int,
        retries: int,
        recorder: Recorder[JobT],
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
        active: list[JobT] = []
        while not self._throttle.closed:
            await self._top_up(active)
            answers = await self._ask(asker, active) if active else None
            if answers is None:
                break
            waits = [self._settle(*pair) for pair in zip(active, answers, strict=True)]
            active = [one for one, wait in zip(active, waits, strict=True) if wait is not None]
            await self._throttle.pause(max((wait for wait in waits if wait is not None), default=0.0))
        for job in active:
            if job.answers:  # keep what was paid for, where the user can find it
                self._recorder.fail(job, TeacherError("the run was stopped in the middle of the conversation"))

    async def _ask(self, asker: Asker, active: Sequence[JobT]) -> list[Answer | DistillError] | None:
        """Ask when rate, concurrency and budget allow it; None where nothing may be sent any more."""
        requests = [job.request() for job in active]
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
            for job in active:
                job.probing = probe
            answers = await asker.ask(requests)
        finally:
            self._in_flight -= len(requests)
            if probe:
                self._outage.probed()
        self._throttle.leave(ticket, requests, answers)
        return answers

    async def _top_up(self, active: list[JobT]) -> None:
        while len(active) < self._size:
            try:
                job = next(self._jobs)
            except StopIteration:
                return
            if job is not None:
                active.append(job)
            else:
                await asyncio.sleep(0)  # thousands of rows may need no asking: let the others work

    def _settle(self, job: JobT, outcome: Answer | DistillError) -> float | None:
        """Deal with one outcome: gives the seconds to wait before the next request, or None at the row's end."""
        if isinstance(outcome, Answer):
            return self._take(job, outcome)
        if not isinstance(outcome, TeacherError):
            return self._give_up(job, outcome)
        if outcome.elsewhere and job.moves < FREE_MOVES:
            job.moves += 1
            return 0.0
        if not (outcome.unreachable or outcome.down):
            self._outage.answered()
        if self._evidence.fatal(outcome):
            self._stop(outcome)
        if self._throttle.closed and (outcome.fatal or outcome.retryable):
            return 0.0  # the run is stopping, and not because of this row: the next run asks again
        if self._is_away(job, outcome):
            return 0.0
        if self._evidence.may_retry(outcome) and self._may_retry(job, outcome):
            return self._wait_before_retry(job, outcome)
        return self._give_up(job, outcome)

    def _take(self, job: JobT, answer: Answer) -> float | None:
        """Take an answer: the conversation is finished, or continues with its next turn."""
        self._refusals = 0
        self._outage.answered()
        try:
            job.take(answer)
        except TeacherError as error:
            if error.retryable and self._may_retry(job, error):
                return self._wait_before_retry(job, error)
            return self._give_up(job, error, paid=True)
        self._evidence.answer()
        if not job.done:
            return 0.0
        self._recorder.save(job)
        return None

    def _give_up(self, job: JobT, error: DistillError, *, paid: bool = False) -> float | None:
        """Set a row apart, and stop the run where it is one too many."""
        stops = self._evidence.against(job.id, error, paid=paid)
        if isinstance(error, TeacherError) and error.unreachable and not self._evidence.answered:
            stops = error  # there is no such server: this row was not refused by it
        if stops is not None:
            self._stop(stops)
            if not paid and isinstance(error, TeacherError) and error.retryable:
                return 0.0
        self._recorder.fail(job, error)
        return None

    def _is_away(self, job: JobT, error: TeacherError) -> bool:
        """Whether the server is away: the row waits, and pays nothing."""
        try:
            proven = self._evidence.answered > 0
            return self._outage.explains(error, job.id, proven=proven, probing=job.probing)
        except TeacherError as too_long:
            self._stop(too_long)
            return True

    def _may_retry(self, job: JobT, error: TeacherError) -> bool:
        progress = self._evidence.answered > job.progress
        job.progress = self._evidence.answered
        if (error.throttled or error.retry_after is not None) and progress and self._retries:
            return True  # a rate limit that lets others pass is no failure of this row: it waits for its turn
        job.attempts += 1
        return job.attempts <= self._retries

    def _wait_before_retry(self, job: JobT, error: TeacherError) -> float:
        if error.unreachable and not self._warned:
            self._warned = True
            log.warning("%s; trying again", error.message)
        if error.retry_after is not None and error.retry_after > max(self._patience, LONGEST_BACKOFF):
            self._stop(_too_early(error))
        elif error.throttled or error.retry_after is not None:
            self._throttle.hold(self._wait_of_all(error))
        else:
            return _backoff(job.attempts) * random.uniform(0.75, 1.25)
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
