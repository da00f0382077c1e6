"""What each HTTP status means for a row and for the run: one table, which the docs print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_REFUSED_ROW = "set apart in `FILE.failed.jsonl`"
_REFUSED_RUN = "stops when 20 rows in a row are refused alike, 50 once there were answers"
_RETRIED = "retried, `--retries` times, with growing pauses"
_EVIDENCE = "stops at once before the first answer; after one, when 10 rows in a row meet the same"
_PACE = "retried after `Retry-After` or a growing pause; costs no retry while other rows get answers"
_SLOWER = "all wait, then fewer requests are in flight; a wait longer than `--patience` ends it (exit code 75)"


@dataclass(frozen=True, slots=True)
class Rule:
    """What some statuses mean.

    Attributes:
        name: the statuses, as the docs write them.
        statuses: the statuses.
        meaning: what the server means by them.
        row: what becomes of the row, for the docs.
        run: what becomes of the run, for the docs.
        flags: of the TeacherError.
        hint: what to do; `{key}` and `{model}` are filled in.
    """

    name: str
    statuses: frozenset[int]
    meaning: str
    row: str
    run: str
    flags: dict[str, Any] = field(default_factory=dict)
    hint: str | None = None


def _of(*parts: int | range) -> frozenset[int]:
    return frozenset(status for part in parts for status in ([part] if isinstance(part, int) else part))


_RETRY = {"retryable": True}
_SLOW = {"retryable": True, "throttled": True}
_FATAL = {"fatal": True}

RULES = (
    Rule("200–299", _of(range(200, 300)), "an answer: its body decides", "see below", "continues"),
    Rule(
        "300–399",
        _of(range(300, 400)),
        "a redirect, which is not followed: it would carry the key elsewhere",
        _REFUSED_ROW,
        _EVIDENCE,
        _FATAL,
        "give the address it redirects to as --base-url",
    ),
    Rule(
        "401",
        _of(401),
        "a wrong key",
        _REFUSED_ROW,
        _EVIDENCE,
        _FATAL,
        "check the key in {key}",
    ),
    Rule("402", _of(402), "no money left", _REFUSED_ROW, _EVIDENCE, _FATAL, "the account needs money"),
    Rule(
        "403",
        _of(403),
        "forbidden: the key, or this prompt",
        _REFUSED_ROW,
        _EVIDENCE + "; one that names moderation is the row's alone",
        _FATAL,
        "check what the key in {key} may do",
    ),
    Rule(
        "404, 405, 410",
        _of(404, 405, 410),
        "no such model or path",
        _REFUSED_ROW,
        _EVIDENCE,
        _FATAL,
        "check the model {model!r} and --base-url, which usually ends in /v1",
    ),
    Rule(
        "407",
        _of(407),
        "the proxy wants a password",
        _REFUSED_ROW,
        _EVIDENCE,
        _FATAL,
        "check the proxy's user and password",
    ),
    Rule(
        "408, 409, 423–425, 499", _of(408, 409, 423, 424, 425, 499), "a passing failure", _RETRIED, "continues", _RETRY
    ),
    Rule("429, 498, 529", _of(429, 498, 529), "too many requests", _PACE, _SLOWER, _SLOW, "lower --concurrency"),
    Rule(
        "502, 503, 520–527, 530",
        _of(502, 503, range(520, 528), 530),
        "a gateway: the server behind it is away",
        _RETRIED,
        "three rows in a row: all wait for the server, up to `--patience`, and no row pays with retries",
        _RETRY | {"down": True},
    ),
    Rule(
        "other 4xx (400, 413, 415, 422, 451, …), 501, 505",
        _of(range(400, 500), 501, 505),
        "the request cannot be answered",
        _REFUSED_ROW,
        _REFUSED_RUN + "; overlong and moderated prompts do not count after the first answer",
    ),
    Rule(
        "other 5xx (500, 504, …), anything else",
        _of(range(500, 600)),
        "the server failed",
        _RETRIED,
        "stops when 10 rows in a row have used up their retries",
        _RETRY,
    ),
)
"""The first rule with a status holds."""


def rule_of(status: int) -> Rule:
    """The rule for a status; one that does not exist in HTTP counts as a failure of the server."""
    return next((rule for rule in RULES if status in rule.statuses), RULES[-1])


CODES = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "tokens": 429,
    "requests": 429,
    "capacity_exceeded": 498,
    "overloaded_error": 529,
    "overloaded": 529,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "timeout": 504,
    "upstream_error": 502,
    "service_unavailable": 503,
    "unavailable_error": 503,
    "invalid_request_error": 400,
    "unsupported_parameter": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    # Google's
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
}
"""Words in an error object → the status they stand for, where the response itself has the status 200."""

BASE_RESP = {1002: 429, 1039: 429, 1004: 401, 2049: 401, 1008: 402, 1026: 451, 1027: 451, 2013: 400, 1001: 504}
"""MiniMax's `base_resp.status_code` → status; others but 0 are failures of the server."""

BROKE = {"insufficient_quota", "billing_error", "billing_not_active", "insufficient_balance", "quota_exceeded"}
"""Codes of an account without money or quota."""


def status_in(codes: Iterable[str]) -> int:
    """The status that an error object's codes stand for; 500 where they say nothing."""
    codes = list(codes)
    for code in codes:
        if code.isascii() and code.isdigit() and len(code) == 3 and int(code) >= 400:
            return int(code)
    return next((CODES[code] for code in codes if code in CODES), 500)


def table() -> str:
    """The rules as a Markdown table, for the docs."""
    lines = ["| status | meaning | the row | the run |", "|---|---|---|---|"]
    lines += [f"| {rule.name} | {rule.meaning} | {rule.row} | {rule.run} |" for rule in RULES]
    return "\n".join(lines)
