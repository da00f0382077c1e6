"""A real OpenAI-compatible server, `transformers serve` with SmolLM2, as the teacher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """The model's folder, and the base URL of a server that has it."""
    from distill import make_plugin_manager

    weights = make_plugin_manager().models.get("smollm2").path()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    words = ["serve", str(weights), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path_factory.mktemp("serve") / "log").open("w+") as log:
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=log, stderr=log, env=env)
        try:
            end = time.monotonic() + 180
            while not healthy(port):
                log.seek(0)
                assert process.poll() is None and time.monotonic() < end, log.read()
                time.sleep(0.5)
            yield weights, f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def healthy(port):
    """Whether the server is up."""
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


ROWS = [
    {"prompt": "What is the capital of France?"},
    {"turns": ["What is 1 + 1?", "And 2 + 2?"]},
    {"prompt": "Count from one to five.", "system": "You answer in one line."},
]


def test_collect_from_a_server_and_from_the_same_model_here(serving, cli, prompts, out, read):
    """Greedy answers are those of the local teacher: the server renders, and we send, the same conversation."""
    weights, url = serving
    words = ["collect", prompts(ROWS), "--max-tokens", 40, "--temperature", 0]
    ran = cli(*words, "--teacher", f"openai:{weights}", "--base-url", url, "--out", out, "--concurrency", 2, "--json")
    assert ran.code == 0, ran.err
    assert (ran.summary["rows"], ran.summary["requests"]) == (3, 4)
    assert ran.summary["usage"]["completion_tokens"] <= 160
    ran = cli(*words, "--teacher", f"transformers:{weights}", "--out", f"{out}2", "--json", "-T", "batch_size=1")
    assert ran.code == 0, ran.err
    ran = cli(*words, "--teacher", f"transformers:{weights}", "--out", f"{out}2", "--json")
    assert (ran.code, ran.summary["cached"], ran.summary["requests"]) == (0, 3, 0), "a local teacher is resumed too"
    served, local = ({row["metadata"]["source"]["line"]: row["messages"] for row in read(path)} for path in both(out))
    assert served == local


def both(out):
    """The two files of transcripts."""
    return out, out.with_name(out.name + "2")


def test_a_killed_collection_goes_on(serving, spawn, prompts, out, read):
    weights, url = serving
    words = ["collect", prompts([f"Say the number {n}." for n in range(8)]), "--teacher", f"openai:{weights}"]
    words += ["--base-url", url, "--out", out, "--max-tokens", 4, "--concurrency", 1]
    process = spawn(*words)
    end = time.monotonic() + 120
    while not out.exists() or len(read(out)) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = read(out)
    assert spawn(*words).wait(120) == 0
    rows = read(out)
    assert len(rows) == 8 == len({row["id"] for row in rows}) and rows[: len(before)] == before


def test_a_model_that_is_not_there_is_one_line(serving, cli, prompts, out):
    _, url = serving
    ran = cli("collect", prompts(50), "--teacher", "openai:no/such-model", "--base-url", url, "--out", out)
    assert ran.code == 1
    assert len(ran.err.splitlines()) < 15, ran.err
