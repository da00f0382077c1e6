"""How long a server asks its client to wait: by a header, by a field of its error, or in the words of its message."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_EPOCH = 1_000_000_000
"""A Retry-After from this number on is a time since 1970, not a number of seconds."""

_WORDS = re.compile(
    r"(?:try|retry)(?: your request)?(?: again)? (?:in|after) ((?:[\d.]+ ?(?:ms|[dhms])[a-z]* ?)+)", re.I
)
_PART = re.compile(r"([\d.]+) ?(ms|[dhms])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DAILY = re.compile(r"per[ _-]?day|daily|\b[RT]PD\b", re.IGNORECASE)


def wait_of(headers: Mapping[str, str], payload: Any, message: str, *, limited: bool) -> float | None:
    """Seconds to wait before asking again; None where the server does not tell.

    Args:
        headers: of the response.
        payload: its JSON, where it is JSON.
        message: of its error.
        limited: whether the status means a limit: then the words of the message count, too.
    """
    for value, unit in ((headers.get("retry-after-ms"), 0.001), (headers.get("Retry-After"), 1.0)):
        if (seconds := retry_after(value, unit)) is not None:
            return seconds
    if (seconds := _google_delay(payload)) is not None:
        return seconds
    if not limited:
        return None
    if found := _WORDS.search(message):
        return duration(found[1])
    if _DAILY.search(message):
        reset = retry_after(headers.get("X-RateLimit-Reset"))
        return _until_midnight() if reset is None else reset
    return None


def retry_after(value: str | None, unit: float = 1.0) -> float | None:
    """Seconds of a Retry-After header, which holds a number, a date, or (by mistake) a time since 1970."""
    if value is None:
        return None
    try:
        seconds = float(value) * unit
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return duration(value)
    if seconds >= _EPOCH:
        seconds = (seconds / 1000 if seconds >= 1000 * _EPOCH else seconds) - time.time()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def duration(text: str) -> float | None:
    """Seconds of a text such as `7m54.3s`, `11h0m`, `34s` or `120ms`; None where it is something else."""
    parts = _PART.findall(text)
    try:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
    except ValueError:
        return None


def _google_delay(payload: Any) -> float | None:
    """The `retryDelay` in the details of Google's errors."""
    error = payload.get("error") if isinstance(payload, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            return duration(delay)
    return None


def _until_midnight() -> float:
    """Seconds until midnight in UTC, when daily quotas usually start again."""
    now = datetime.now(timezone.utc)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
