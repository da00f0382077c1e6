"""A server that goes away: everybody waits, nobody pays with retries, and it goes on when the server is back."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from distill.collection import outage
from distill.testing import Reply, completion

SERVER = Path(__file__).parents[1] / "support" / "odd_server.py"


class Restarting:
    """The odd server as a process on one port: it can be killed, and started again."""

    def __init__(self, folder: Path):
        self._log = folder / "asked.jsonl"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self.start()

    def start(self) -> None:
        words = ["--port", str(self._port), "--log", self._log, "--delay", "0.05"]
        self._process = subprocess.Popen([sys.executable, SERVER, *words], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline().startswith("PORT")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def asked(self) -> int:
        return self._log.read_text().count("\n") if self._log.exists() else 0


@pytest.fixture
def restarting(tmp_path):
    server = Restarting(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize("seconds", [10, pytest.param(70, marks=pytest.mark.slow)])
def test_a_server_that_is_restarted_costs_no_row(spawn, restarting, prompts, out, read, seconds):
    words = ["--teacher", "openai:m", "--base-url", restarting.url, "--out", out, "--concurrency", 8, "--retries", 2]
    process = spawn("collect", prompts(200), *words)
    while restarting.asked() < 60:
        time.sleep(0.02)
    restarting.kill()
    time.sleep(seconds)
    restarting.start()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(read(out)) == 200
    assert err.count("waiting for the server since") == 1 and "(--patience)" in err
    assert "the server is back after" in err


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(outage, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(outage, "LAST_PROBE", 0.2)


def test_patience_ends(cli, restarting, prompts, out, read, failures, quick):
    """What came is kept, and no row is set apart: the next run asks again."""

    def kill_after():
        while restarting.asked() < 60:
            time.sleep(0.02)
        restarting.kill()

    killer = threading.Thread(target=kill_after)
    killer.start()
    words = ["--teacher", "openai:m", "--base-url", restarting.url, "--out", out, "--patience", 1, "--retries", 3]
    ran = cli("collect", prompts(500), *words)
    killer.join()
    assert ran.code == 1
    assert "the server was away for 1 s" in ran.err and "rows saved" in ran.err
    assert 40 <= len(read(out)) < 500 and failures() == []
    restarting.start()
    assert cli("collect", prompts(500), *words).code == 0
    assert len(read(out)) == 500


def test_a_gateway_without_its_server_is_waited_for(ask, quick):
    """502 and 503 of several rows: even a run without retries loses none of them."""
    began = time.monotonic()

    def script(asked):
        away = len(server_asked) >= 20 and time.monotonic() < began + 2
        server_asked.append(asked.text)
        return Reply("<html>Bad gateway</html>", 502) if away else Reply(completion("fine"), delay=0.02)

    server_asked = []
    ran, _ = ask(script, "--retries", 2, "--concurrency", 8, count=60)
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 60
    assert "waiting for the server since" in ran.err and "the server is back" in ran.err


def test_connections_that_are_reset_are_an_outage_too(ask, quick):
    """As a container's proxy does it while the container is restarted: every connection is accepted, and reset."""
    began, asked_at = time.monotonic(), []

    def script(asked):
        away = len(asked_at) >= 20 and time.monotonic() < began + 3
        asked_at.append(asked.at)
        return Reply(reset=True) if away else Reply(completion("fine"), delay=0.02)

    ran, _ = ask(script, "--retries", 3, "--concurrency", 8, count=60)
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 60 and "waiting for the server since" in ran.err


def test_a_prompt_that_kills_the_server_is_set_apart(ask, quick, failures):
    """Everybody in flight meets the reset; the one that causes it pays a try each time."""

    def script(asked):
        return Reply(reset=True, delay=0.02) if asked.text == "prompt 30" else Reply(completion("fine"), delay=0.02)

    ran, _ = ask(script, "--retries", 2, "--concurrency", 8, count=60)
    assert (ran.code, ran.summary["rows"]) == (1, 59)
    assert "broke" in failures()[0]["error"]


def test_one_row_that_meets_502_is_no_outage(ask, failures):
    def script(asked):
        return Reply("", 502) if asked.text == "prompt 5" else None

    ran, server = ask(script, "--retries", 2, "--concurrency", 4, count=40)
    assert (ran.code, ran.summary["rows"], len(failures())) == (1, 39, 1)
    assert server.texts().count("prompt 5") == 3
    assert "waiting" not in ran.err


def test_only_one_probe_at_a_time(ask, monkeypatch):
    monkeypatch.setattr(outage, "FIRST_PROBE", 0.2)
    gone = []

    def script(asked):
        if len(gone) < 12 and (gone or asked.text == "prompt 20"):
            gone.append(asked.at)
            return Reply("", 503)
        return Reply(completion("fine"), delay=0.01)

    ran, _ = ask(script, "--concurrency", 8, "--retries", 6, count=60)
    assert ran.code == 0, ran.err
    later = [at - gone[0] for at in gone if at - gone[0] > 0.15]
    assert later == sorted(later) and all(b - a > 0.15 for a, b in pairwise(later))


@pytest.mark.parametrize("retries", [0, 3])
def test_a_reused_connection_that_breaks_costs_no_try(ask, retries):
    """A server that closes each connection after one answer without saying so."""
    served = set()

    def script(asked):
        if asked.text not in served and len(served) % 2:
            served.add(asked.text)
            return Reply(reset=True)
        served.add(asked.text)
        return None

    ran, server = ask(script, "--retries", retries, "--concurrency", 1, count=20)
    assert ran.code == 0, ran.err
    assert (ran.summary["rows"], ran.summary["requests"]) == (20, 20)
    assert len(server.asked) > 20
