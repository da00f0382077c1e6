"""Ctrl-C and SIGTERM: what is in flight is saved, a second one ends at once, and the exit code says which it was."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from distill.testing import FaultyServer, Reply


@pytest.fixture
def start(spawn, prompts, out):
    """Start collecting many prompts from a server."""

    def run(server, *argv, count=500, **kwargs):
        words = ["collect", prompts(count), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
        return spawn(*words, "--concurrency", 4, *argv, **kwargs)

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_answers_in_flight_are_saved(start, out, read, failures, number, code):
    with FaultyServer(delay=0.4) as server:
        process = start(server)
        server.wait_for(6)
        time.sleep(0.1)
        process.send_signal(number)
        shown, err = process.communicate(timeout=20)
        assert process.returncode == code, err
        assert len(read(out)) == len(server.asked), "everything that was asked was saved"
        assert f"{len(read(out))} rows saved" in err and "Traceback" not in err
        assert shown == "" and failures() == []
        asked = len(server.asked)
        assert start(server, "--limit", asked).wait(20) == 0, "what is saved is not asked again"
        assert len(server.asked) == asked


def test_a_second_ctrl_c_stops_at_once(start, out, read):
    with FaultyServer(lambda asked: Reply(hang=True)) as server:
        process = start(server)
        server.wait_for(4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 1.5
        assert process.returncode == 130 and "Traceback" not in err
        assert read(out) == []


def test_answers_that_do_not_come_are_waited_for_five_seconds(start):
    with FaultyServer(lambda asked: Reply(hang=True)) as server:
        process = start(server)
        server.wait_for(4)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 143 and "Traceback" not in err
        assert 4.5 < time.monotonic() - began < 7
        assert "4 answers may come within 5 s" in err


def test_waiting_workers_stop_at_once(start):
    """Those behind the gate, or between two retries, have nothing in flight."""
    with FaultyServer(lambda asked: Reply("", 429, {"Retry-After": "60"})) as server:
        process = start(server)
        server.wait_for(4)
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert time.monotonic() - began < 1.5


def test_ctrl_c_from_a_terminal_reaches_the_group(start):
    with FaultyServer(delay=0.2) as server:
        process = start(server, start_new_session=True)
        server.wait_for(4)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130


SLEEPER = r"""
import os, time, distill

class Sleeper:
    batch_size = 2
    def {method}:
        os.write(1, b"asked\n")  # one write: print() makes two, and the threads' pieces mix
        time.sleep(60)

@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("sleeper", "", lambda options, model: Sleeper())]
"""


@pytest.mark.parametrize("method", ["ask(self, request)", "ask_batch(self, requests)"])
def test_a_teacher_that_cannot_be_interrupted_does_not_hold_up_the_end(spawn, tmp_path, prompts, out, method):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(SLEEPER.format(method=method))
    process = spawn("--plugin", plugin, "collect", prompts(9), "--teacher", "sleeper", "--out", out)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 2


def test_a_conversation_stopped_in_the_middle_keeps_what_was_paid(spawn, prompts, out, read, failures):
    path = prompts([{"turns": ["a", "b", "c"]}])
    with FaultyServer(delay=0.4) as server:
        process = spawn("collect", path, "--teacher", "openai:m", "--base-url", server.url, "--out", out)
        server.wait_for(2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130 and len(server.asked) == 2
    [row] = failures()
    assert [answer["content"] for answer in row["answers"]] == ["echo: a", "echo: b"]
    assert "stopped" in row["error"]


def test_the_library_hands_the_signal_to_who_had_it(tmp_path, prompts, out):
    """Called from a program of its own, `collect` leaves the signal handlers as they were, and calls them."""
    import subprocess

    script = textwrap.dedent("""
        import os, signal, sys, threading, time
        from distill.collection import CollectSettings, collect
        seen = []
        signal.signal(signal.SIGTERM, lambda *args: seen.append(args[0]))
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        def end():
            while not os.path.exists(sys.argv[2]) or not os.path.getsize(sys.argv[2]):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
        
        threading.Thread(target=end).start()
        summary = collect(sys.argv[1], sys.argv[2], CollectSettings("openai:m", base_url=sys.argv[3], concurrency=2))
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        assert seen == [signal.SIGTERM] and 0 < summary.rows < 500, (seen, summary)
    """)
    with FaultyServer(delay=0.05) as server:
        words = [sys.executable, "-c", script, str(prompts(500)), str(out), server.url]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert Path(out).stat().st_size
