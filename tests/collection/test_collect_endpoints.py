"""Several servers: work goes where it is answered, and a server that dies costs no row a try."""

from __future__ import annotations

import json
import socket
import time
from types import SimpleNamespace

import pytest

from distill import UsageError
from distill.builtin.teachers import endpoints
from distill.builtin.teachers.endpoints import Endpoint, read_addresses
from distill.testing import FaultyServer, Reply, completion


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
    with FaultyServer(delay=0.02) as fast, FaultyServer(delay=0.02) as other, FaultyServer(delay=0.04) as slow:
        ran = collect([fast, other, slow], 400, "--concurrency", 24)
        assert ran.code == 0 and ran.summary["requests"] == ran.summary["rows"] == 400
        asked = [len(one.asked) for one in (fast, other, slow)]
        counts = {one.url.removesuffix("/v1"): len(one.asked) for one in (fast, other, slow)}
        told = {where.removesuffix("/v1/chat/completions"): one for where, one in ran.summary["servers"].items()}
        assert told == {where: {"answered": count, "failed": 0} for where, count in counts.items()}
    assert sum(asked) == 400
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
        return Reply(completion("fine"))

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
