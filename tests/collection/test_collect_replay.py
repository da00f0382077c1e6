"""Recorded answers as a teacher."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def record(tmp_path):
    """Write a file of recorded conversations, each a list of texts (a leading `system:` is one) in turns."""

    def write(*talks):
        rows = []
        for n, (texts, metadata) in enumerate(talks):
            roles = iter(["user", "assistant"] * len(texts))
            messages = [
                {"role": "system", "content": text}
                if text.startswith("system:")
                else {"role": next(roles), "content": text}
                for text in texts
            ]
            rows.append({"id": str(n), "messages": messages, "metadata": metadata})
        path = tmp_path / "recorded.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def replay(cli, prompts, out, read):
    """Collect from recorded answers; gives the summary, and each row's answers."""

    def run(path, rows, *argv):
        ran = cli("collect", prompts(rows), "--teacher", f"replay:{path}", "--out", out, "--json", *argv)
        answers = [
            [message["content"] for message in row["messages"] if message["role"] == "assistant"] for row in read(out)
        ]
        return ran, answers

    return run


def test_each_prompt_gets_its_answer(replay, record, out, read, failures):
    path = record((["a", "to a"], {"model": "big", "usage": {"n": 1}, "finish_reason": "length"}), (["b", "to b"], {}))
    ran, answers = replay(path, ["a", "b", "unknown"])
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["cut"]) == (1, 2, 1, 1)
    assert sorted(answers) == [["to a"], ["to b"]]
    metadata = next(row["metadata"] for row in read(out) if row["messages"][0]["content"] == "a")
    assert metadata["model"] == "big" and metadata["usage"] == {"n": 1} and metadata["teacher"] == f"replay:{path}"
    assert "holds no answer to this conversation" in failures()[0]["error"]
    assert ran.summary["requests"] == 3, "no match is not asked again"


def test_turns(replay, record):
    path = record((["a", "1", "b", "2"], {}), (["a", "other", "b", "3"], {}), (["b", "alone"], {}))
    assert replay(path, [{"turns": ["a", "b"]}])[1] == [["1", "2"]]


def test_the_turns_of_each_sample(replay, record):
    path = record((["a", "1", "b", "2"], {"sample": 1}), (["a", "other", "b", "3"], {"sample": 0}))
    _, answers = replay(path, [{"turns": ["a", "b"]}], "--samples", 2)
    assert sorted(answers) == [["1", "2"], ["other", "3"]]


def test_samples_are_given_in_turn(replay, record, out, read):
    path = record((["a", "zero"], {"sample": 0}), (["a", "two"], {"sample": 2}), (["a", "one"], {"sample": 1}))
    replay(path, ["a"], "--samples", 4, "--seed", 7)
    assert {row["metadata"]["sample"]: row["messages"][-1]["content"] for row in read(out)} == {
        0: "zero",
        1: "one",
        2: "two",
        3: "zero",
    }


def test_the_same_system_message_is_preferred(replay, record):
    path = record((["system:x", "a", "with x"], {}), (["a", "bare"], {}), (["system:y", "a", "with y"], {}))
    rows = [
        {"prompt": "a", "system": "system:y"},
        {"prompt": "a"},
        {"prompt": "a", "system": "system:z"},
    ]
    _, answers = replay(path, rows, "--concurrency", 1)
    assert answers == [["with y"], ["bare"], ["with x"]]


@pytest.mark.parametrize("content", [None, "", "x\n", '{"prompt": "a"}\n'])
def test_a_file_that_is_none(replay, tmp_path, content):
    path = tmp_path / "recorded.jsonl"
    if content is not None:
        path.write_text(content)
    ran, _ = replay(path, ["a"])
    assert ran.code == 1 and str(path) in ran.err + ran.out and "Traceback" not in ran.err
