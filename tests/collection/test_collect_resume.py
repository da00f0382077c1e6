"""No paid answer is lost or bought twice: after kills, with more prompts, with more samples, on one file."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from distill.collection.output import check_output
from distill.errors import DataError
from distill.testing import FaultyServer, Reply, completion


@pytest.fixture
def collect(cli, prompts, out, server):
    """Collect from the good server; gives the summary, and the number of requests that came."""

    def run(file, *argv, code=0, expect=None):
        before = len(server.asked)
        words = ["collect", file, "--teacher", "openai:m", "--base-url", server.url, "--out", out, "--json"]
        ran = cli(*words, *argv)
        assert ran.code == code, ran.err
        if expect is not None:
            assert len(server.asked) - before == expect
        return ran

    return run


def test_kill_minus_nine_loses_nothing_and_buys_nothing_twice(spawn, prompts, out, read, tmp_path):
    """Killed five times at any moment: each row once, and only what was in flight was asked again."""
    path, concurrency, kills = prompts(200), 4, 5
    with FaultyServer(delay=0.01) as server:
        words = ["collect", path, "--teacher", "openai:m", "--base-url", server.url, "--out", out]
        words += ["--concurrency", concurrency]
        for kill in range(1, kills + 1):
            process = spawn(*words)
            server.wait_for(kill * 25)
            process.kill()
            process.wait()
        process = spawn(*words, "--json")
        shown, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        rows = read(out)
        assert sorted(row["messages"][0]["content"] for row in rows) == sorted(f"prompt {n}" for n in range(200))
        assert len({row["id"] for row in rows}) == 200
        assert len(server.asked) <= 200 + kills * concurrency
        summary = json.loads(shown)
        assert summary["rows"] + summary["cached"] == 200
        asked = len(server.asked)
        assert spawn(*words).wait(30) == 0
        assert len(server.asked) == asked, "nothing is left to ask"


def test_new_prompts_cost_their_requests_only(collect, prompts, read, out):
    collect(prompts(20), expect=20)
    ran = collect(prompts(30), expect=10)
    assert (ran.summary["rows"], ran.summary["cached"]) == (10, 20)
    assert len(read(out)) == 30


def test_more_samples_buy_the_new_ones_only(collect, prompts, read, out, server):
    path = prompts(5)
    collect(path, "--samples", 2, "--seed", 10, expect=10)
    ran = collect(path, "--samples", 4, "--seed", 10, expect=10)
    assert (ran.summary["rows"], ran.summary["cached"]) == (10, 10)
    seeds = Counter(asked.body["seed"] for asked in server.asked)
    assert seeds == {10: 5, 11: 5, 12: 5, 13: 5}
    assert Counter(row["metadata"]["sample"] for row in read(out)) == {0: 5, 1: 5, 2: 5, 3: 5}


def test_a_prompt_that_comes_twice_is_asked_once(collect, prompts):
    ran = collect(prompts(["a", "b", "a", "a"]), "--samples", 2, expect=4)
    assert (ran.summary["rows"], ran.summary["duplicates"], ran.summary["cached"]) == (4, 4, 0)
    ran = collect(prompts(["a", "b", "a", "a"]), "--samples", 2, expect=0)
    assert (ran.summary["rows"], ran.summary["duplicates"], ran.summary["cached"]) == (0, 4, 4)


def test_limit_takes_the_first_prompts(collect, prompts, server):
    ran = collect(prompts(20), "--limit", 3, expect=3)
    assert sorted(server.texts()) == ["prompt 0", "prompt 1", "prompt 2"]
    assert ran.summary["rows"] == 3
    collect(prompts(20), "--limit", 5, expect=2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--temperature", 1], "temperature=0.0, not temperature=1.0"),
        (["--temperature", 0, "--max-tokens", 9], "max_tokens=default, not max_tokens=9"),
        ([], "temperature=0.0, not temperature=default"),
        (["--temperature", 0, "--teacher", "openai:n"], "'openai:m', not 'openai:n'"),
        (["--temperature", 0, "-T", 'body={"top_p": 0.5}'], "body"),
    ],
)
def test_other_parameters_are_refused_unless_append(collect, prompts, out, read, words, says):
    path = prompts(3)
    collect(path, "--temperature", 0, expect=3)
    before = out.read_bytes()
    ran = collect(path, *words, code=2, expect=0)
    assert f"{out}:1:" in ran.err and says in ran.err and "--append" in ran.err
    assert out.read_bytes() == before
    collect(path, *words, "--append", expect=3)
    collect(path, *words, "--append", expect=0)
    assert len({row["id"] for row in read(out)}) == 6 == len(read(out))


def test_what_only_concerns_the_way_there_may_change(collect, prompts):
    collect(prompts(3), "--concurrency", 1, "--temperature", "0", expect=3)
    more = ["--temperature", "0.0", "--timeout", 5, "-T", "api_key_env=OTHER", "--retries", 1]
    collect(prompts(3), *more, expect=0)


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"hello",
        b'{"prompt": "a"}\n',
        b'[{"messages": []}]',
        b"\x7fELF\x02\x01\0\0",
        b"\0\0\0",
        b"\n",
        b'{"id": 5}\n',
    ],
)
def test_a_file_that_holds_something_else_is_left_alone(collect, prompts, out, content):
    out.write_bytes(content)
    ran = collect(prompts(3), code=1, expect=0)
    assert ran.err.count("Error: ") == 1 and f"{out}:1: not a transcript" in ran.err
    assert out.read_bytes() == content
    assert not Path(f"{out}.quarantine").exists()


def test_a_malformed_row_further_down_is_named(collect, prompts, out):
    collect(prompts(3), expect=3)
    content = out.read_bytes().replace(b"\n", b"\noops\n", 1)
    out.write_bytes(content)
    ran = collect(prompts(5), code=1, expect=0)
    assert f"{out}:2:" in ran.err
    assert out.read_bytes() == content


def test_the_prompt_file_is_not_the_output(collect, prompts):
    path = prompts([{"messages": [{"role": "user", "content": "a"}]}])
    ran = collect(path, "--out", path, code=2, expect=0)
    assert "is the prompt file" in ran.err
    assert len(path.read_text().splitlines()) == 1


def test_a_first_row_torn_at_any_byte_is_ours(tmp_path, collect, prompts, out):
    collect(prompts(1), expect=1)
    row = out.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for cut in range(len(row) + 1):
        torn.write_bytes(row[:cut])
        check_output(torn, "prompts.txt")
    torn.write_bytes(b'{"id": 1' + row)
    with pytest.raises(DataError):
        check_output(torn, "prompts.txt")


@pytest.mark.parametrize("cut", [1, 9, 200, -2, -1])
def test_a_torn_last_row_is_asked_again(collect, prompts, out, read, cut):
    collect(prompts(3), "--concurrency", 1, expect=3)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
    ran = collect(prompts(3), expect=0 if cut == -1 else 1)
    assert ("quarantine" in ran.err) == (cut != -1)
    assert sorted(row["messages"][0]["content"] for row in read(out)) == ["prompt 0", "prompt 1", "prompt 2"]


def test_a_second_collector_on_the_file_is_refused(spawn, cli, prompts, out):
    with FaultyServer(delay=2) as server:
        words = ["collect", prompts(2), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
        first = spawn(*words)
        server.wait_for(2)
        ran = cli(*words)
        assert ran.code == 1 and "another process is writing" in ran.err
        assert len(server.asked) == 2
        assert first.wait(20) == 0


def test_failed_rows_are_tried_again_and_vanish(cli, prompts, out, read, failures):
    bad = {"prompt 1", "prompt 3"}

    def script(asked):
        return Reply({"error": "no"}, 400) if asked.text in bad else Reply(completion("x"))

    with FaultyServer(script) as server:
        words = ["collect", prompts(5), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
        ran = cli(*words)
        assert ran.code == 1 and "2 failed" in ran.err and f"{out}.failed.jsonl" in ran.err
        first = failures()
        assert {row["prompt"]["messages"][-1]["content"] for row in first} == bad
        assert all(row["error"].startswith("HTTP 400") for row in first)
        bad.discard("prompt 1")
        assert cli(*words).code == 1
        assert [row["prompt"]["messages"][-1]["content"] for row in failures()] == ["prompt 3"]
        assert len(server.asked) == 7
        bad.clear()
        assert cli(*words).code == 0
        assert failures() == [] and not Path(f"{out}.failed.jsonl").exists()
        assert len(server.asked) == 8 and len(read(out)) == 5


def test_a_spoilt_file_of_failed_rows_does_not_matter(cli, prompts, out, server):
    Path(f"{out}.failed.jsonl").write_text("notes of mine\n")
    ran = cli("collect", prompts(2), "--teacher", "openai:m", "--base-url", server.url, "--out", out)
    assert ran.code == 0 and "left as it is" in ran.err
    assert Path(f"{out}.failed.jsonl").read_text() == "notes of mine\n"


def test_a_disk_that_fills_up_stops_the_run(spawn, prompts, out, read, server):
    import resource

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    words = ["collect", prompts(500), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
    process = spawn(*words, "--concurrency", 2, preexec_fn=limit)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "File too large" in err and "Traceback" not in err
    rows = len(read(out))
    assert 5 < rows <= len(server.asked) <= rows + 4


def test_everything_there_needs_neither_teacher_nor_key(collect, cli, prompts, out):
    collect(prompts(3), expect=3)
    ran = cli("collect", prompts(3), "--teacher", "openai:m", "--out", out)
    assert ran.code == 0 and "3 already there" in ran.err
