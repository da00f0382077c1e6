"""Several servers with one model: each request goes to the one with the least to do."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import TeacherError, UsageError
from distill.builtin.teachers.http import HttpClient

FIRST_REST, GROWTH, LAST_REST = 1.0, 1.5, 15.0
"""Seconds that a failing server is left alone, how much longer each time, and at most."""
_MEMORY, _KNOWN = 0.1, 20
"""The weight of the latest answer in a server's mean time per answer, and how many answers make it known."""
_READ_AGAIN = 5.0
"""Seconds after which a file of addresses is read again."""
SLOWER, FASTER = 0.7, 0.4
"""The fraction of a server's requests that is left after a 429, and how many each answer then gives back."""
REFUSALS = 3
"""Refusals without an answer between them (401, 404, …) that concern a server, not the requests."""
_TOLD_EVERY = 30.0
"""Seconds between two lines about each server, with `distill --verbose`."""

log = logging.getLogger("distill")


@dataclass
class Endpoint:
    """One server, and how it has done lately.

    Attributes:
        client: sends requests to it.
        in_flight: requests without an answer yet.
        answered: requests that it has answered.
        failed: requests that it has failed.
        refused: requests that it has refused for good since its last answer: for a wrong key, an unknown model.
        limit: requests in flight at most; a 429 lowers it.
        mean: seconds per answer, lately.
        best: the lowest mean so far; None: it has given too few answers to know.
        rest: seconds that it is left alone after the next failure.
        until: when the rest ends, by the loop's clock; 0: it does not rest.
        throttled: whether it rests because it is overloaded: answers to earlier requests do not end that rest.
        left: whether its address is no longer among those that the user gives.
    """

    client: HttpClient
    in_flight: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    limit: float = float("inf")
    mean: float = 0.0
    best: float | None = None
    rest: float = FIRST_REST
    until: float = 0.0
    throttled: bool = False
    left: bool = False

    def is_free(self, now: float) -> bool:
        """Whether it may be asked: it is well and below its limit, or its rest is over and nobody probes it yet."""
        if self.left or self.in_flight >= max(1.0, self.limit):
            return False
        return self.until == 0.0 or (now >= self.until and self.in_flight == 0)

    @property
    def load(self) -> float:
        """Its requests in flight, times how much longer they take than at its best: servers of any size compare."""
        return (self.in_flight + 1) * (1.0 if self.best is None else self.mean / self.best)

    def succeed(self, seconds: float, now: float) -> None:
        """It has answered."""
        self.answered += 1
        self.refused = 0
        self.limit += FASTER
        self.mean += max(_MEMORY, 1 / self.answered) * (seconds - self.mean)
        if self.answered >= _KNOWN:
            self.best = self.mean if self.best is None else min(self.best, self.mean)
        if self.until and not (self.throttled and now < self.until):
            log.info("%s is back", self.client.where)
            self.rest, self.until, self.throttled = FIRST_REST, 0.0, False

    def concerns_it(self, error: TeacherError, others_answer: bool) -> bool:
        """Whether an error is the server's, so that others may have an answer to the same request."""
        if error.retryable or not error.fatal:
            return error.retryable
        self.refused += 1
        return others_answer and (not self.answered or self.refused >= REFUSALS)

    def fail(self, error: TeacherError, now: float) -> None:
        """It is away, overloaded or broken: leave it alone for a while."""
        self.failed += 1
        if self.until > now:
            return  # requests of before its rest: one failure is enough
        wait = self.rest if error.retry_after is None else min(error.retry_after, LAST_REST)
        if not self.until:
            log.warning("%s; others are asked instead", error.message)
        if error.throttled:
            self.limit = max(1.0, min(self.limit, self.in_flight) * SLOWER)
        self.throttled = error.throttled
        self.rest, self.until = min(self.rest * GROWTH, LAST_REST), now + wait

    def line(self) -> str:
        """How it does, in one line."""
        mean = f", {self.mean:.2f} s per answer" if self.answered else ""
        rests = ", left alone" if self.until else ", no longer used" if self.left else ""
        counts = f"{self.in_flight} in flight, {self.answered} answered, {self.failed} failed"
        return f"{self.client.where}: {counts}{mean}{rests}"


class Endpoints:
    """Stands in for an `HttpClient`, over several servers.

    Args:
        addresses: the servers: URLs separated by commas or white space, or `@FILE` of such, which is read again while
            it runs.
        make: makes the client of an address.

    Raises:
        UsageError: no address, a malformed one, or a file that cannot be read.
    """

    def __init__(self, addresses: str, make: Callable[[str], HttpClient]):
        self._addresses, self._make = addresses, make
        self._read_at = 0.0
        self._told_at: float | None = None
        self._all: dict[str, Endpoint] = {url: Endpoint(make(url)) for url in read_addresses(addresses)}
        self._first = next(iter(self._all.values()))

    @property
    def where(self) -> str:
        """The address of the first server, for messages that concern none of them alone."""
        return self._first.client.where

    def reported(self, payload: Mapping[str, Any]) -> TeacherError:
        """As `HttpClient.reported`."""
        return self._first.client.reported(payload)

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to the server with the least to do.

        Raises:
            TeacherError: there was no answer. `elsewhere` is set where another server is there to be asked.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._update(began)
        self._tell(began)
        endpoint = self._choose(began)
        endpoint.in_flight += 1
        try:
            payload = await endpoint.client.post(body)
        except TeacherError as error:
            now, others = loop.time(), [one for one in self._all.values() if one is not endpoint]
            if endpoint.concerns_it(error, any(one.answered for one in others)):
                endpoint.fail(error, now)
                if any(one.is_free(now) for one in others):
                    error.elsewhere, error.unreachable, error.throttled, error.down = True, False, False, False
            raise
        else:
            now = loop.time()
            endpoint.succeed(now - began, now)
            return payload
        finally:
            endpoint.in_flight -= 1

    def counts(self) -> dict[str, dict[str, int]]:
        """How many requests each server has answered and failed."""
        return {one.client.where: {"answered": one.answered, "failed": one.failed} for one in self._all.values()}

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self._all.values():
            await endpoint.client.close()

    def _choose(self, now: float) -> Endpoint:
        there = [one for one in self._all.values() if not one.left]
        free = [one for one in there if one.is_free(now)]
        if not free:  # all rest: the one that is due first gets the collector's probe
            return min(there, key=lambda one: one.until)
        probes = [one for one in free if one.until]
        return probes[0] if probes else min(free, key=lambda one: one.load)

    def _tell(self, now: float) -> None:
        """Now and then, one line about each server."""
        if self._told_at is None or now >= self._told_at + _TOLD_EVERY:
            if self._told_at is not None and log.isEnabledFor(logging.INFO):
                for endpoint in self._all.values():
                    log.info("%s", endpoint.line())
            self._told_at = now

    def _update(self, now: float) -> None:
        """Read the file of addresses again: servers may join and leave."""
        if not self._addresses.startswith("@") or now < self._read_at + _READ_AGAIN:
            return
        self._read_at = now
        try:
            urls = read_addresses(self._addresses)
            for url in urls:
                if url not in self._all:
                    self._all[url] = Endpoint(self._make(url))
        except UsageError as error:  # it is being written: the servers known so far stay
            log.warning("%s; the servers stay as they are", error.message)
            return
        for url, endpoint in self._all.items():
            endpoint.left = url not in urls


def read_addresses(text: str) -> list[str]:
    """The addresses in a text, or in the file that `@FILE` names; `#` starts a comment there.

    Raises:
        UsageError: there is none, or the file cannot be read.
    """
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--base-url {text}: {error}", "give a UTF-8 file with one URL per line") from None
        found = [line.partition("#")[0].strip() for line in lines]
    else:
        found = re.split(r"[,\s]+", text)
    urls = list(dict.fromkeys(url for url in found if url))
    if not urls:
        raise UsageError(f"--base-url {text!r} has no address", "write it like http://localhost:8000/v1")
    return urls
