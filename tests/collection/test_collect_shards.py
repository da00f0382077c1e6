"""One collection in several jobs: each row once, whatever dies and however often the number of shards changes."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import DistillError, UsageError
from distill.collection import shards
from distill.collection.merge import merge
from distill.collection.shards import OutputFiles, Shard, claimed
from distill.testing import FaultyServer

SLURM = {"SLURM_ARRAY_TASK_ID": "11", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10"}


def test_where_a_shards_place_comes_from():
    assert Shard.parse("0/1", {}) == Shard(0, 1)
    assert Shard.parse("auto", SLURM) == Shard(1, 4)
    assert Shard.parse("auto", {"SKYPILOT_JOB_RANK": "2", "SKYPILOT_NUM_JOBS": "3"}) == Shard(2, 3)


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("4/4", {}, "from 0 to N - 1"),
        ("1", {}, "from 0 to N - 1"),
        ("-1/4", {}, "from 0 to N - 1"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1"}, "are not set"),
    ],
)
def test_places_that_are_none(text, environ, says):
    with pytest.raises(UsageError, match=says):
        Shard.parse(text, environ)


@given(st.text(), st.integers(1, 50))
def test_every_row_belongs_to_one_shard(id, count):
    assert sum(Shard(index, count).owns(id) for index in range(count)) == 1


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_shards_overlap_where_some_row_may_belong_to_both(one, other, data):
    first, second = data.draw(st.integers(0, one - 1)), data.draw(st.integers(0, other - 1))
    residues = range(math.lcm(one, other))
    share = any(n % one == first and n % other == second for n in residues)
    assert Shard(first, one).overlaps(Shard(second, other)) == share


def test_files(tmp_path):
    out = tmp_path / "answers.v1.jsonl"
    names = ["answers.v1.shard-0.jsonl", "answers.v1.shard-12.jsonl", "answers.v1.jsonl"]
    for name in (*names, "answers.v1.shard-0.jsonl.failed.jsonl", "answers.v2.shard-0.jsonl"):
        (tmp_path / name).touch()
    files = OutputFiles.of(out, Shard(0, 2))
    assert files.target.name == "answers.v1.shard-0.jsonl"
    assert sorted(path.name for path in files.earlier) == ["answers.v1.jsonl", "answers.v1.shard-12.jsonl"]
    assert OutputFiles.of(out, None) == OutputFiles(out)


def test_a_live_shard_with_rows_in_common_is_refused(tmp_path):
    out = tmp_path / "out.jsonl"
    with claimed(Shard(1, 4), out):
        with claimed(Shard(0, 4), out), claimed(Shard(2, 4), out):
            pass
        for other in (Shard(1, 4), Shard(1, 2), Shard(3, 6)):
            with pytest.raises(DistillError, match=rf"rows of shard 1/4, which process {os.getpid()} on "):
                claimed(other, out).__enter__()
    with claimed(Shard(1, 2), out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".out.jsonl.shards.lock"]


def test_a_dead_shards_rows_may_be_taken_over(tmp_path, monkeypatch):
    """Dead: its process on this machine is gone, or a minute went by without a heartbeat."""
    out, owner = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.shard-0-of-1.owner"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = {"shard": "0/1", **shards._here(), "pid": int(gone.stdout)}
    owner.write_text(json.dumps(dead))
    with claimed(Shard(1, 4), out):
        pass
    for elsewhere in ({"host": "elsewhere"}, {"processes": "pid:[1]"}):  # another machine, or another container
        owner.write_text(json.dumps({**dead, **elsewhere}))
        with pytest.raises(DistillError, match=f"on {elsewhere.get('host', socket.gethostname())} is collecting"):
            claimed(Shard(1, 4), out).__enter__()
    old = time.time() - shards.STALE - 1
    os.utime(owner, (old, old))
    with claimed(Shard(1, 4), out):
        pass
    owner.write_text("half a li")
    with claimed(Shard(1, 4), out):
        pass


def test_a_live_shard_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "HEARTBEAT", 0.02)
    with claimed(Shard(0, 1), tmp_path / "out.jsonl"):
        (owner,) = tmp_path.glob(".*.owner")
        os.utime(owner, (0, 0))
        deadline = time.monotonic() + 10
        while owner.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def words(path: Path, server: FaultyServer, out: Path, shard: str) -> list[object]:
    return [
        "collect",
        path,
        "--teacher",
        "openai:m",
        "--base-url",
        server.url,
        "--out",
        out,
        "--shard",
        shard,
        "--json",
    ]


def test_shards_together_are_the_whole(cli, prompts, out, read, server):
    path = prompts(30)
    summaries = [cli(*words(path, server, out, f"{n}/3"), "--samples", 2).summary for n in range(3)]
    assert sum(one["rows"] for one in summaries) == len(server.asked) == 60
    assert all(one["rows"] > 10 and one["left"] == one["cached"] == one["others"] == 0 for one in summaries)
    files = sorted(out.parent.glob("out.shard-*.jsonl"))
    assert [Path(one["out"]) for one in summaries] == files
    merge(out, files, prompts=path)
    asked = [row["messages"][0]["content"] for row in read(out)]
    assert asked == [f"prompt {n}" for n in range(30) for _ in range(2)]
    again = cli(*words(path, server, out, "0/5"), "--samples", 2).summary
    assert again["rows"] == 0 and len(server.asked) == 60, "rows in the merged file are not asked again"


def test_the_budget_is_for_all_shards_together(cli, prompts, out, server):
    path, price = prompts(200), ["--price", "0/5000", "--max-tokens", "4", "--max-usd", "1"]
    spent = [cli(*words(path, server, out, f"{n}/4"), *price, "--concurrency", "1").summary["usd"] for n in range(4)]
    assert all(0.2 < one <= 0.25 for one in spent), spent


def test_a_total_budget_is_for_all_shards_together(cli, prompts, out, server):
    """Each takes an equal part of what is left when it starts: a row costs 1 cent here."""
    path, price = prompts(200), ["--price", "0/5000", "--max-tokens", "4", "--concurrency", "1"]
    first = cli(*words(path, server, out, "0/4"), *price, "--max-usd-total", "1").summary["usd"]
    second = cli(*words(path, server, out, "1/4"), *price, "--max-usd-total", "1").summary["usd"]
    assert 0.2 < first <= 0.25 and 0.15 < second <= (1 - first) / 4


def test_killed_and_started_again_in_other_numbers(spawn, prompts, out, read):
    """4, then 7, then 2 shards, killed in the middle: each row is in one file once, and few are asked again."""
    path, count, concurrency, kills = prompts(240), 240, 4, 0
    with FaultyServer(delay=0.02) as server:
        for number in (4, 7):
            running = [
                spawn(*words(path, server, out, f"{n}/{number}"), "--concurrency", concurrency) for n in range(number)
            ]
            server.wait_for(len(server.asked) + 60, 120)
            for process in running:
                process.kill()
                process.wait()
            kills += number
        running = [spawn(*words(path, server, out, f"{n}/2"), "--concurrency", concurrency) for n in range(2)]
        for process in running:
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
        files = sorted(out.parent.glob("out.shard-*.jsonl"))
        rows = Counter(row["id"] for file in files for row in read(file))
        assert len(rows) == count and set(rows.values()) == {1}
        assert len(server.asked) <= count + kills * concurrency
