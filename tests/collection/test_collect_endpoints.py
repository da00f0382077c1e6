"""Several servers: work goes where it is answered, and a server that dies costs no row a try."""

from __future__ import annotations

import json
import re
import socket
import time
from types import SimpleNamespace

import pytest

from distill import TeacherError, UsageError
from distill.builtin.teachers import endpoints
from distill.builtin.teachers.endpoints import Endpoint, read_addresses
from distill.collection import schedule
from distill.testing import FaultyServer, Reply


@pytest.fixture
def collect(cli, prompts, out):
    """Collect from several servers."""

    def run(servers, count, *argv, base_url=None):
        where = [word for one in servers for word in ("--base-url", one.url)] if base_url is None else base_url
        return cli("collect", prompts(count), "--teacher", "openai:m", *where, "--out", out, "--json", *argv)

    return run


def dead_server() -> SimpleNamespace:
    """The address of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return SimpleNamespace(url=f"http://127.0.0.1:{probe.getsockname()[1]}/v1")


def test_a_server_at_half_speed_gets_about_half(collect):
    with FaultyServer(delay=0.1) as fast, FaultyServer(delay=0.1) as other, FaultyServer(delay=0.2) as slow:
        ran = collect([fast, other, slow], 200, "--concurrency", 24)
        assert ran.code == 0 and ran.summary["requests"] == ran.summary["rows"] == 200
        asked = [len(one.asked) for one in (fast, other, slow)]
        counts = {one.url.removesuffix("/v1"): len(one.asked) for one in (fast, other, slow)}
        told = {where.removesuffix("/v1/chat/completions"): one for where, one in ran.summary["servers"].items()}
        assert told == {where: {"answered": count, "failed": 0} for where, count in counts.items()}
    assert sum(asked) == 200
    assert 0.3 < asked[2] / ((asked[0] + asked[1]) / 2) < 0.8, asked


def test_a_dead_server_costs_no_row_a_try(collect, read, out):
    """With --retries 0 a row that paid with a try would fail."""
    with FaultyServer(delay=0.01) as alive:
        ran = collect([alive, dead_server()], 100, "--retries", 0)
        assert (ran.code, ran.summary["rows"], ran.summary["failed"]) == (0, 100, 0), ran.err
        assert len(alive.asked) == 100
    assert ran.err.count("others are asked instead") == 1
    assert len({row["id"] for row in read(out)}) == 100


@pytest.mark.parametrize("reply", [Reply("busy", 429), Reply("oops", 500), Reply(raw=b"")])
def test_a_server_that_fails_is_left_alone(collect, reply, monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_REST", 0.2)
    with FaultyServer(delay=0.01) as good, FaultyServer([reply] * 10_000) as bad:
        ran = collect([good, bad], 200, "--retries", 0, "--concurrency", 8)
        assert (ran.code, ran.summary["rows"]) == (0, 200), ran.err
        assert len(good.asked) == 200 and len(bad.asked) < 30


def test_all_servers_down_is_an_outage_as_with_one(collect):
    ran = collect([dead_server(), dead_server()], 3)
    assert ran.code == 1 and "cannot reach" in ran.err and "is the server running?" in ran.err


def test_a_refused_request_is_not_asked_elsewhere(collect, failures):
    refuse = Reply({"error": {"message": "prompt too long"}}, 400)
    with FaultyServer([refuse] * 100) as one, FaultyServer([refuse] * 100) as other:
        ran = collect([one, other], 2)
        assert len(one.asked) + len(other.asked) == 2
    assert ran.summary["failed"] == 2


def test_servers_join_and_leave_by_a_file(collect, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoints, "_READ_AGAIN", 0.05)
    servers = tmp_path / "servers.txt"

    def script(asked):
        if len(first.asked) == 20:
            servers.write_text(f"{second.url}\n")

    with FaultyServer(script, delay=0.01) as first, FaultyServer(delay=0.01) as second:
        servers.write_text(f"{first.url}  # the old one\n\n")
        ran = collect([], 120, "--concurrency", 2, base_url=["--base-url", f"@{servers}"])
        assert (ran.code, ran.summary["rows"]) == (0, 120), ran.err
        assert 20 <= len(first.asked) < 100 and len(second.asked) == 120 - len(first.asked)


def test_the_row_id_is_free_of_the_address(collect, out, read):
    with FaultyServer() as one, FaultyServer() as other:
        collect([one], 5)
        ran = collect([one, other], 5)
    assert (ran.summary["rows"], ran.summary["cached"]) == (0, 5)
    assert "127.0.0.1" not in json.dumps(read(out))


def test_a_server_that_was_down_is_probed_until_it_is_back(collect, monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_REST", 0.1)
    with FaultyServer(delay=0.02) as steady, FaultyServer([Reply("", 503)] * 3, delay=0.02) as shaky:
        ran = collect([steady, shaky], 300, "--concurrency", 8, "--retries", 0)
        assert (ran.code, ran.summary["rows"]) == (0, 300), ran.err
        assert len(shaky.asked) > 50


def test_a_server_without_the_model_gets_no_rows_once_others_have_answered(collect):
    """It joined too early, or its key is wrong: it would answer everything at once, with a refusal."""
    missing = Reply({"error": {"message": "no such model"}}, 404, delay=0.1)
    with FaultyServer(delay=0.01) as good, FaultyServer([missing] * 1000) as bad:
        ran = collect([good, bad], 200, "--retries", 0, "--concurrency", 8)
        assert (ran.code, ran.summary["rows"], ran.summary["failed"]) == (0, 200, 0), ran.err
        assert len(bad.asked) <= 8
    assert "no such model; others are asked instead" in ran.err


def test_a_row_that_fails_every_server_is_given_up(collect):
    def script(asked):
        return Reply("oops", 500) if asked.text == "prompt 7" else None

    with FaultyServer(script, delay=0.01) as one, FaultyServer(script, delay=0.01) as other:
        ran = collect([one, other], 60, "--retries", 1, "--concurrency", 4)
        asked = [text for server in (one, other) for text in server.texts() if text == "prompt 7"]
    assert (ran.code, ran.summary["rows"], ran.summary["failed"]) == (1, 59, 1), ran.err
    assert 2 <= len(asked) <= schedule.FREE_MOVES + 2


def test_an_overloaded_server_gets_less(collect):
    """Four at a time are too many for it: it soon has fewer, and the refused requests cost no row a try."""
    few = FaultyServer(lambda asked: Reply("busy", 429, {"Retry-After": "0.05"}) if few._open > 4 else None, delay=0.02)
    with few, FaultyServer(delay=0.02) as many:
        ran = collect([few, many], 400, "--retries", 0, "--concurrency", 32)
        assert (ran.code, ran.summary["rows"]) == (0, 400), ran.err
        refused = ran.summary["servers"][f"{few.url}/chat/completions"]["failed"]
        assert refused < 60 and len(few.asked) - refused > 10, (refused, len(few.asked))


def test_verbose_tells_how_each_server_does(cli, prompts, out, monkeypatch):
    monkeypatch.setattr(endpoints, "_TOLD_EVERY", 0.05)
    with FaultyServer(delay=0.02) as one, FaultyServer(delay=0.02) as other:
        where = [word for server in (one, other) for word in ("--base-url", server.url)]
        words = ["collect", prompts(60), "--teacher", "openai:m", *where, "--out", out, "--concurrency", 4]
        ran = cli("--verbose", *words)
        lines = [line for line in ran.err.splitlines() if "in flight" in line]
        again = cli(*words, "--samples", 2)
    assert ran.code == 0 and {line.split()[1] for line in lines} == {
        f"{one.url}/chat/completions:" for one in (one, other)
    }
    assert re.search(r"/completions: \d in flight, \d+ answered, 0 failed, 0\.\d\d s per answer$", lines[-1])
    assert "in flight" not in again.err


def test_servers_of_any_size_compare():
    """Requests in flight count for more where they take longer than at the server's best."""
    quick, slow = Endpoint(client=None), Endpoint(client=None)
    for _ in range(50):
        quick.succeed(0.1, 0.0)
        slow.succeed(1.0, 0.0)
    assert quick.load == slow.load == 1
    for _ in range(100):
        slow.succeed(3.0, 0.0)
    assert slow.load == pytest.approx(3, rel=0.01)
    quick.in_flight = 1
    assert quick.load < slow.load


def test_a_limit_is_kept_until_its_end_whatever_is_still_answered():
    one, busy = (
        Endpoint(client=SimpleNamespace(where="a")),
        TeacherError("busy", retryable=True, throttled=True, retry_after=5),
    )
    one.in_flight = 10
    one.fail(busy, now=100.0)
    one.succeed(1.0, now=101.0)
    assert not one.is_free(101.0) and one.limit == pytest.approx(7.4)
    one.succeed(1.0, now=106.0)
    one.in_flight = 6
    assert one.is_free(106.0)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://a/v1", ["http://a/v1"]),
        ("http://a/v1,http://b/v1", ["http://a/v1", "http://b/v1"]),
        ("http://a/v1  http://b/v1\thttp://a/v1", ["http://a/v1", "http://b/v1"]),
    ],
)
def test_addresses(text, urls):
    assert read_addresses(text) == urls


def test_addresses_that_are_none(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("# nobody\n")
    for text, says in (("@/no/such/file", "No such file"), (f"@{empty}", "has no address"), (" , ", "has no address")):
        with pytest.raises(UsageError, match=says):
            read_addresses(text)


def test_a_server_is_probed_by_one_request_at_a_time():
    one = Endpoint(client=None, until=time.monotonic() - 1)
    assert one.is_free(time.monotonic())
    one.in_flight = 1
    assert not one.is_free(time.monotonic())
