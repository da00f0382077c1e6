"""Rate limiter and concurrency gate: Retry-After, requests and tokens per minute, concurrency, and the budget."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distill.collection.budget import Meter, OutOfMoney, likely_tokens
from distill.types import Answer, Request

SLOWER = 0.7
"""The fraction of the requests in flight that is left after a 429."""
NEAR = 0.9
"""The fraction of the level of the last 429 up to which the requests in flight double with each round of answers."""
CALM = 20
"""Rounds of answers without a 429 after which they double again, above that level too."""
GLANCE = 0.1
"""Seconds between looks at the pace while waiting for it: answers may have been shorter than estimated."""
FIRST_GUESS = 256
"""Tokens assumed for an answer before one came."""


class Pace:
    """An amount per minute, evenly spread: a server that counts per second is not overrun either.

    Attributes:
        next: the time from which more may go.
    """

    def __init__(self, per_minute: float):
        self._seconds = 60 / per_minute
        self.next = 0.0

    def take(self, amount: float, now: float) -> None:
        """Count an amount that goes now."""
        self.next = max(now, self.next) + amount * self._seconds

    def correct(self, amount: float) -> None:
        """Correct what was taken by an amount, which may be negative."""
        self.next += amount * self._seconds


@dataclass(frozen=True, slots=True)
class Ticket:
    """A permission to send: when it was given, the tokens estimated for it, and the dollars set aside."""

    at: float
    tokens: int
    most: Sequence[float]


class Throttle:
    """Rate limiter and concurrency gate that all workers pass. Make it inside the event loop.

    Args:
        most: requests in flight at most; a 429 lowers it for a while.
        meter: counts what is asked and paid.
        rpm: requests per minute; None: no limit.
        tpm: tokens per minute, those of the answers included; None: no limit.
    """

    def __init__(self, most: int, meter: Meter, rpm: float | None = None, tpm: float | None = None):
        self._loop = asyncio.get_running_loop()
        self._most, self._limit = most, float(most)
        self._meter = meter
        self._rpm, self._tpm = rpm and Pace(rpm), tpm and Pace(tpm)
        self._paces = [pace for pace in (self._rpm, self._tpm) if pace]
        self._turn = asyncio.Lock()
        self._inside = 0
        self._opens = 0.0
        self._news_from = 0.0  # a 429 to a request that was sent earlier brings no news
        self._level = 0.0  # the limit before the last 429
        self._seconds = 0.0  # per answer, lately
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing may be sent any more."""
        return self._closed.is_set()

    @property
    def held(self) -> bool:
        """Whether `hold` is in force."""
        return self._opens > self._loop.time()

    @property
    def seconds(self) -> float:
        """What an answer took, lately; 0 before the first one."""
        return self._seconds

    def close(self) -> None:
        """Let no request pass any more, and wake all workers that wait."""
        self._closed.set()
        while self._waiting:
            self._wake()

    async def enter(self, requests: Sequence[Request]) -> Ticket | None:
        """Wait until the requests may be sent; then `leave` must be called with the ticket.

        Returns:
            None where the gate was closed meanwhile.

        Raises:
            OutOfMoney: the budget does not suffice, and nothing in flight can give back what it had set aside.
        """
        most = await self._room(requests)
        if most is None:
            return None
        self._inside += 1
        self._wake()  # there may be room for one more
        tokens = 0
        if self._paces:
            async with self._turn:  # one after the other, so that each knows what those before it used
                tokens = self._guess(requests) if self._tpm else 0
                await self._wait_for_pace(len(requests), tokens)
        await self._wait_for_opening()
        ticket = Ticket(self._loop.time(), tokens, most)
        if self.closed:
            self.leave(ticket, (), ())
            return None
        return ticket

    async def _room(self, requests: Sequence[Request]) -> Sequence[float] | None:
        """Wait until there is room and money for the requests; None where the gate was closed meanwhile."""
        while not self.closed:
            most = self._meter.reserve(requests) if self._inside < int(self._limit) else None
            if most is not None:
                return most
            if not self._inside:
                raise OutOfMoney(f"the budget of {self._meter.name} is used up")
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiting)
            await waiting
        return None

    def leave(self, ticket: Ticket, requests: Sequence[Request], outcomes: Sequence[Any]) -> None:
        """Give the place back, and count what came; `outcomes` are Answers or errors, one a request."""
        meter = self._meter
        tokens, told = meter.tokens_in + meter.tokens_out, meter.answers
        meter.settle(requests, ticket.most, outcomes)
        if self._tpm:
            untold = sum(isinstance(outcome, Answer) for outcome in outcomes) - (meter.answers - told)
            estimated = ticket.tokens * untold / max(len(outcomes), 1)  # what is not known stays as it was estimated
            self._tpm.correct(meter.tokens_in + meter.tokens_out - tokens + estimated - ticket.tokens)
        self._adapt(ticket, outcomes)
        self._inside -= 1
        self._wake()

    def _adapt(self, ticket: Ticket, outcomes: Sequence[Any]) -> None:
        """Let fewer requests in flight after a 429, at most once per answer's time, and more after answers."""
        now = self._loop.time()
        if any(getattr(outcome, "throttled", False) for outcome in outcomes):
            if ticket.at >= self._news_from:
                before = min(self._limit, self._inside)
                self._level = before if before >= self._level else (self._level + before) / 2
                self._limit = max(1.0, before * SLOWER)
                self._news_from = now + self._seconds
        elif any(isinstance(outcome, Answer) for outcome in outcomes):
            took = now - ticket.at
            self._seconds = took if not self._seconds else 0.8 * self._seconds + 0.2 * took
            self._limit = min(self._most, self._limit + self._growth(now))

    def _growth(self, now: float) -> float:
        """What an answer adds to the limit: 1 up to near the level of the last 429, so that it doubles in a round of
        answers; there one request per round, and the more the longer no 429 comes."""
        if self._limit < NEAR * self._level:
            return 1.0
        rounds = (now - self._news_from) / max(self._seconds, 1e-9)
        return max(1 / self._limit, min(1.0, rounds / CALM))

    def hold(self, seconds: float) -> None:
        """Let no request pass for a number of seconds."""
        self._opens = max(self._opens, self._loop.time() + seconds)
        self._news_from = max(self._news_from, self._opens)
        for pace in self._paces:
            pace.next = max(pace.next, self._opens)

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the closing."""
        if seconds > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closed.wait(), seconds)

    async def _wait_for_pace(self, requests: int, tokens: int) -> None:
        while (left := max(pace.next for pace in self._paces) - self._loop.time()) > 0 and not self.closed:
            await self.pause(min(left, GLANCE))
        for pace, amount in ((self._rpm, requests), (self._tpm, tokens)):
            if pace:
                pace.take(amount, self._loop.time())

    async def _wait_for_opening(self) -> None:
        while (left := self._opens - self._loop.time()) > 0 and not self.closed:
            await self.pause(left + random.uniform(0, 0.1 * left))  # spread out: not all at once when it opens

    def _guess(self, requests: Sequence[Request]) -> int:
        meter = self._meter
        answer = meter.tokens_out // meter.answers if meter.answers else FIRST_GUESS
        return sum(likely_tokens(one) + min(answer, one.params.max_tokens or answer) for one in requests)

    def _wake(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return
