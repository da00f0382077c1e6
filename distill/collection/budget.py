"""What answers cost: prices, a meter, and a budget that holds while many requests are in flight."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distill.errors import DistillError, TeacherError, UsageError
from distill.files.jsonl import dumps
from distill.types import Answer, Message, Request

BYTES_PER_TOKEN = 4
"""Of text, about, for estimates. No tokenizer makes more than one token of a byte."""
TOKENS_PER_MESSAGE = 8
"""What a chat format adds to a message, at most."""
ASSUMED_ANSWER = 2048
"""Tokens assumed for an answer without a limit, until a longer one was seen."""

_MILLION = 1_000_000


class OutOfMoney(DistillError):
    """The budget does not suffice for the next request."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens.

    Attributes:
        input: of what is sent.
        output: of what is answered, the reasoning included.
        cached: of what is sent and the server had in its cache.
    """

    input: float
    output: float
    cached: float

    def of(self, usage: Mapping[str, Any]) -> float | None:
        """Dollars for a usage; None where it does not say its tokens."""
        sent, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(sent, int) or not isinstance(answered, int):
            return None
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        cached = min(cached, sent) if isinstance(cached, int) else 0
        return self.for_tokens(sent - cached, answered) + cached * self.cached / _MILLION

    def for_tokens(self, sent: float, answered: float) -> float:
        """Dollars for a number of tokens."""
        return (sent * self.input + answered * self.output) / _MILLION


def parse_price(text: str) -> Price:
    """Read what the user gave as `IN/OUT`, dollars per million tokens.

    Raises:
        UsageError: it is something else.
    """
    try:
        sent, answered = (float(part) for part in text.split("/"))
        if not (0 <= sent < float("inf") and 0 <= answered < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(f"price {text!r} is not IN/OUT", "write dollars per million tokens, e.g. 0.25/2") from None
    return Price(sent, answered, sent)


def find_price(api_url: str | None, model: str | None) -> Price | None:
    """Look a model's price up in the table of the package `genai-prices`, which needs no network.

    Args:
        api_url: the server; one on this machine or in a private network costs nothing known.
        model: its name there.
    """
    if not api_url or not model or _is_private(api_url):
        return None
    from genai_prices import Usage, calc_price

    def price(**tokens: int) -> float:
        return float(calc_price(Usage(**tokens), model, provider_api_url=api_url).total_price) * 1000

    try:
        # For 1,000 tokens: what very long prompts cost more is not in it.
        sent = price(input_tokens=1000)
        return Price(sent, price(output_tokens=1000), price(input_tokens=1000, cache_read_tokens=1000))
    except LookupError:
        return None


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".invalid", ".localhost"))


def size_of(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> int:
    """Bytes of text in a conversation and its tools."""
    return sum(len(text.encode()) for text in _texts(messages, tools))


def _texts(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        yield message.content or ""
        yield message.reasoning_content or ""
        yield from (dumps(part) for part in (*message.tool_calls, *message.reasoning_details))
    yield from (dumps(tool) for tool in tools)


def likely_tokens(request: Request) -> int:
    """About how many tokens a request has."""
    return size_of(request.messages, request.tools) // BYTES_PER_TOKEN + TOKENS_PER_MESSAGE * len(request.messages)


class Meter:
    """Counts what was asked and paid, and keeps the budget: the most a request can cost is set aside before it is sent.

    Args:
        price: None where nobody knows it: then there are no dollars.
        max_usd: the budget of the run; None: there is none.
        answer_limit: the most tokens an answer can have; None: unknown, and an answer that is longer than any before
            it may break the budget.

    Attributes:
        spent: dollars, answers without a usage and requests that broke counted at their most.
        tokens_in, tokens_out: of the answers that say so.
        answers: how many answers said so.
        asked: how many requests have come to an end.
        name: the budget, in words.
    """

    def __init__(self, price: Price | None = None, max_usd: float | None = None, answer_limit: int | None = None):
        self.price, self.max_usd, self._limit = price, max_usd, answer_limit
        self.name = "" if max_usd is None else f"${max_usd:g}"
        self._longest = 0  # tokens of an answer beyond its limit, or without one
        self._reserved = 0.0
        self._heard = False
        self.spent = 0.0
        self.tokens_in = self.tokens_out = self.answers = self.asked = 0

    def keep_total(self, max_usd: float, earlier: float, shards: int = 1) -> None:
        """Keep a budget over several runs, too.

        Args:
            max_usd: dollars that all runs together may spend.
            earlier: what earlier runs have spent.
            shards: how many runs share what is left, in equal parts.
        """
        left = max(max_usd - earlier, 0.0) / shards
        if self.max_usd is None or left < self.max_usd:
            self.max_usd = left
            self.name = f"${max_usd:g} for all runs, of which earlier ones spent ${earlier:.4f},"

    def reserve(self, requests: Sequence[Request]) -> list[float] | None:
        """Set aside what the requests can cost at most.

        Before the first answer one worker asks at a time: the server may not keep to the limit of tokens.

        Returns:
            Dollars per request, for `settle`; None where the budget does not suffice. Without a price, nothing.
        """
        if self.price is None or self.max_usd is None:
            return []
        if self._reserved and not self._heard:
            return None
        most = [self._most(self.price, request) for request in requests]
        if self.spent + self._reserved + sum(most) > self.max_usd:
            return None
        self._reserved += sum(most)
        return most

    def settle(self, requests: Sequence[Request], most: Sequence[float], outcomes: Sequence[Any]) -> None:
        """Count what came of requests; `most` is what `reserve` gave for them."""
        self._reserved = max(self._reserved - sum(most), 0.0)
        self._heard = self._heard or any(isinstance(outcome, Answer) for outcome in outcomes)
        self.asked += len(requests)
        for request, outcome in zip(requests, outcomes, strict=True):
            usage = outcome.usage if isinstance(outcome, Answer) else {}
            sent, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(sent, int) and isinstance(answered, int):
                self.answers += 1
                self.tokens_in += sent
                self.tokens_out += answered
                if answered > (request.params.max_tokens or self._limit or 0):
                    self._longest = max(self._longest, answered)  # no limit, or a server that ignores it
            if self.price is not None:
                self.spent += self._cost(self.price, request, outcome, usage)

    def _cost(self, price: Price, request: Request, outcome: Any, usage: Mapping[str, Any]) -> float:
        if isinstance(outcome, Answer):
            known = price.of(usage)
            return self._most(price, request) if known is None else known
        broke = isinstance(outcome, TeacherError) and outcome.maybe_paid
        return self._most(price, request) if broke else 0.0

    def _most(self, price: Price, request: Request) -> float:
        sent = size_of(request.messages, request.tools) + TOKENS_PER_MESSAGE * (len(request.messages) + 1)
        limit = request.params.max_tokens or self._limit or ASSUMED_ANSWER
        return price.for_tokens(sent, max(limit, 2 * self._longest))

    @property
    def usd(self) -> float | None:
        """Dollars spent; None where no price is known."""
        return None if self.price is None else self.spent
