"""Limits: short ones are waited for, long ones end the run at once with the time to come back."""

from __future__ import annotations

import time

import pytest

from distill.builtin.teachers.waits import duration, wait_of
from distill.testing import Reply


def limited(message, status=429, headers=None, **more):
    return Reply({"error": {"message": message, **more}}, status, headers or {})


HOURS = 39600

LONG = {
    "Retry-After": lambda: limited("quota", headers={"Retry-After": str(HOURS)}),
    "in words": lambda: limited("Rate limit reached on requests per day (RPD). Please try again in 11h0m0s."),
    "a time since 1970": lambda: limited("quota", headers={"Retry-After": str(int(time.time()) + HOURS)}),
    "Google's detail": lambda: limited("quota", details=[{"@type": "type/RetryInfo", "retryDelay": f"{HOURS}s"}]),
    "OpenRouter's header": lambda: limited(
        "Rate limit exceeded: free-models-per-day",
        headers={"X-RateLimit-Reset": str((int(time.time()) + HOURS) * 1000)},
    ),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_limit_of_hours_stops_at_once_with_the_hour(ask, out, read, failures, kind):
    script = lambda asked: LONG[kind]() if int(asked.text.split()[1]) >= 10 else None  # noqa: E731
    began = time.monotonic()
    ran, server = ask(script, "--concurrency", 1, count=100)
    assert ran.code == 75 and time.monotonic() - began < 5
    assert len(server.asked) == 11 and len(read(out)) == 10 and failures() == []
    hour = time.strftime("%Y-%m-%d %H:", time.localtime(time.time() + HOURS))
    assert f"run the same command again at {hour}" in ran.err and "10 rows saved" in ran.err
    assert "in 11 h" in ran.err or "in 10 h 59 min" in ran.err


def test_a_daily_limit_without_a_time_ends_at_midnight(ask):
    ran, server = ask(lambda asked: limited("You exceeded your daily quota"), "--patience", 1, "--concurrency", 1)
    seconds = wait_of({}, None, "requests per day", limited=True)
    if seconds > 70:
        assert ran.code == 75 and len(server.asked) == 1


def test_patience_says_how_long_is_too_long(ask):
    """A wait within the user's patience is waited for, and told."""
    refused = []

    def script(asked):
        if not refused:
            refused.append(1)
            return limited("slow", headers={"Retry-After": "1"})
        return None

    ran, _ = ask(script, "--patience", 0, count=3)
    assert ran.code == 0, ran.err
    ran, _ = ask(
        lambda asked: limited("slow", headers={"Retry-After": "90"}), "--patience", 80, "--append", "--seed", 1
    )
    assert ran.code == 75 and "in 90 s" in ran.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("7m54.3s", 474.3), ("11h0m", 39600), ("120ms", 0.12), ("2 minutes", 120), ("soon", None)]
)
def test_durations(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_words_count_only_where_there_is_a_limit():
    assert wait_of({}, None, "please try again in 20s", limited=True) == 20
    assert wait_of({}, None, "please try again in 20s", limited=False) is None
