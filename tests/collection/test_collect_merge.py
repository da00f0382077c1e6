"""Merging shards: by id, the first wins, nothing is lost, and merging again changes nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import DataError, DistillError, UsageError
from distill.cli.main import main
from distill.collection.merge import merge
from distill.files.jsonl import Appender


def row(name: str, answer: str = "a", question: str = "q", **metadata) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, "tools": [], "metadata": metadata}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def ids(path: Path) -> list[str]:
    return [one["id"] for one in read(path)]


def test_the_first_row_with_an_id_wins(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a"), row("b", "first")])
    two = write(tmp_path / "2.jsonl", [row("a"), row("b", "second"), row("c", "\u2028é")])
    report = merge(tmp_path / "out.jsonl", [one, two])
    assert read(tmp_path / "out.jsonl") == [row("a"), row("b", "first"), row("c", "\u2028é")]
    assert (report.rows, report.added, report.duplicates, report.conflicts) == (3, 3, 1, 1)
    (conflict,) = report.named
    assert (conflict.id, conflict.kept, conflict.dropped) == ("b", f"{one}:2", f"{two}:2")


def test_other_metadata_is_no_conflict(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a", created="now")])
    two = write(tmp_path / "2.jsonl", [row("a", created="later")])
    report = merge(tmp_path / "out.jsonl", [one, two])
    assert (report.duplicates, report.conflicts) == (1, 0)


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None)
def test_every_row_is_there_once_however_often_it_is_merged(tmp_path_factory, shards, chance: random.Random):
    folder = tmp_path_factory.mktemp("merge")
    paths = [write(folder / f"{n}.jsonl", [row(str(number)) for number in shard]) for n, shard in enumerate(shards)]
    out = folder / "out.jsonl"
    first = merge(out, paths)
    whole = out.read_bytes() if out.exists() else b""
    assert sorted({number for shard in shards for number in shard}) == sorted(map(int, ids(out) if whole else []))
    again = merge(out, chance.sample(paths, len(paths)))
    assert (out.read_bytes() if out.exists() else b"") == whole
    assert (again.rows, again.added) == (first.rows, 0)


def test_failed_rows_are_merged_without_those_that_succeeded(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a")])
    two = write(tmp_path / "2.jsonl", [row("b")])
    write(tmp_path / "1.jsonl.failed.jsonl", [{"id": "b", "error": "x"}, {"id": "c", "error": "old"}])
    write(tmp_path / "2.jsonl.failed.jsonl", [{"id": "c", "error": "new"}])
    out = tmp_path / "out.jsonl"
    assert merge(out, [one, two]).failed == 1
    assert read(tmp_path / "out.jsonl.failed.jsonl") == [{"id": "c", "error": "new"}]
    three = write(tmp_path / "3.jsonl", [row("c")])
    assert merge(out, [three]).failed == 0
    assert not (tmp_path / "out.jsonl.failed.jsonl").exists()


def test_the_order_of_the_prompt_file(tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    questions = [f"question {n}" for n in range(6)]
    write(prompts, [{"prompt": question} for question in questions])
    rows = [row(f"{q}{sample}", question=q, sample=sample) for q in questions for sample in (0, 1)]
    system = {"role": "system", "content": "Be brief."}
    rows[4]["messages"].insert(0, system)  # as --system adds it
    mixed = [*rows, row("other", question="another prompt")]
    random.Random(1).shuffle(mixed)
    paths = [write(tmp_path / f"{n}.jsonl", mixed[n::3]) for n in range(3)]
    out = tmp_path / "out.jsonl"
    assert main(["merge", str(out), *map(str, paths), "--prompts", str(prompts)]) == 0
    assert ids(out) == [one["id"] for one in rows] + ["other"]
    assert "1 row of no prompt" in capsys.readouterr().err


def test_prompts_of_several_messages_are_known_by_all_of_them(tmp_path):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]
    prompts = write(tmp_path / "prompts.jsonl", [{"messages": talk}, {"prompt": "q"}])
    long, short = row("long"), row("short")
    long["messages"] = [*talk, {"role": "assistant", "content": "b"}]
    out = tmp_path / "out.jsonl"
    merge(out, [write(tmp_path / "1.jsonl", [short, long])], prompts=prompts)
    assert ids(out) == ["long", "short"]


def test_a_row_that_is_being_written_is_left_for_later(tmp_path):
    one = write(tmp_path / "1.jsonl", [row("a")])
    with open(one, "ab") as file:
        file.write(b'{"id": "b", "mess')
    assert merge(tmp_path / "out.jsonl", [one]).rows == 1


def test_mistakes(tmp_path):
    out, bad = tmp_path / "out.jsonl", write(tmp_path / "bad.jsonl", [row("a"), {"prompt": "q"}])
    with pytest.raises(UsageError):
        merge(out, [])
    with pytest.raises(DataError, match=r"bad\.jsonl:2: no list of `messages`"):
        merge(out, [bad])
    with pytest.raises(DataError, match=r"gone\.jsonl: No such file"):
        merge(out, [tmp_path / "gone.jsonl"])
    with pytest.raises(DataError, match="No such file"):
        merge(tmp_path / "no" / "out.jsonl", [bad])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]
    write(out, [row("a")])
    with Appender(out), pytest.raises(DistillError, match="another process is writing to it"):
        merge(out, [bad])
