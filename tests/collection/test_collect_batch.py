"""OpenAI's batches in two steps: request files out, answer files in, and nothing bought twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.collection import batch as module
from distill.testing import completion


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def answer(id, body, status=200):
    """A line of an output file."""
    return {"id": "b", "custom_id": id, "response": {"status_code": status, "body": body}, "error": None}


@pytest.fixture
def step(cli, out, monkeypatch):
    """One of the two steps."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    def run(file, *argv, teacher="openai:m"):
        return cli("collect", file, "--teacher", teacher, "--out", out, "--json", *argv)

    return run


@pytest.fixture
def answers(tmp_path):
    """Write an answer file."""

    def write(rows, name="output.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def test_there_and_back(step, prompts, out, read, failures, answers, tmp_path):
    requests = tmp_path / "requests.jsonl"
    ran = step(prompts(5), "--batch", requests, "--max-tokens", 7, "--system", "s")
    assert ran.code == 0, ran.err
    assert ran.summary == {"files": [str(requests)], "requests": 5, "cached": 0, "duplicates": 0}
    asked = lines(requests)
    assert not out.exists()
    assert asked[0]["method"] == "POST" and asked[0]["url"] == "/v1/chat/completions"
    assert asked[0]["body"]["max_tokens"] == 7 and asked[0]["body"]["messages"][1]["content"] == "prompt 0"
    ids = [row["custom_id"] for row in asked]
    words = ["--max-tokens", 7, "--system", "s"]

    good = answers([answer(ids[3], completion("three")), answer(ids[0], completion("zero \ud83d"))])
    bad = answers(
        [
            answer(ids[1], {"error": {"message": "too long", "code": 400}}, 400),
            {"custom_id": ids[2], "response": None, "error": {"code": "batch_expired", "message": "expired"}},
        ],
        "errors.jsonl",
    )
    ran = step(prompts(5), "--batch-answers", good, "--batch-answers", bad, *words)
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["left"]) == (1, 2, 2, 1)
    assert [row["id"] for row in read(out)] == [ids[0], ids[3]]
    assert read(out)[0]["messages"][-1]["content"] == "zero \ufffd"
    assert {row["id"] for row in failures()} == {ids[1], ids[2]}
    assert "too long" in failures()[0]["error"] and "expired" in failures()[1]["error"]

    ran = step(prompts(5), "--batch-answers", good, *words)
    assert (ran.summary["rows"], ran.summary["cached"], ran.summary["left"]) == (0, 2, 3), "again changes nothing"
    ran = step(prompts(6), "--batch", tmp_path / "more.jsonl", *words)
    assert (ran.summary["requests"], ran.summary["cached"]) == (4, 2), "what has no answer, and what is new"
    more = lines(tmp_path / "more.jsonl")
    assert [row["custom_id"] for row in more[:3]] == [ids[1], ids[2], ids[4]]
    last = answers([answer(row["custom_id"], completion("late")) for row in more], "last.jsonl")
    ran = step(prompts(6), "--batch-answers", last, "--batch-answers", bad, *words)
    assert (ran.code, ran.summary["rows"], ran.summary["left"]) == (0, 4, 0), "a later answer counts, not the error"
    assert failures() == [] and len({row["id"] for row in read(out)}) == 6


def test_the_row_is_as_if_it_had_been_asked(step, cli, prompts, out, read, answers, tmp_path, server):
    step(prompts(1), "--batch", tmp_path / "requests.jsonl")
    [row] = lines(tmp_path / "requests.jsonl")
    step(prompts(1), "--batch-answers", answers([answer(row["custom_id"], completion("echo: prompt 0"))]))
    words = ["--teacher", "openai:m", "--base-url", server.url]
    assert cli("collect", prompts(1), *words, "--out", out).code == 0
    assert server.asked == []
    assert cli("collect", prompts(1), *words, "--out", f"{out}2").code == 0
    assert server.asked[0].body == row["body"]
    [batched], [asked] = read(out), read(Path(f"{out}2"))
    for each in (batched, asked):
        each["metadata"].pop("created")
    assert batched == asked


def test_requests_on_their_way_are_not_written_again(step, prompts, tmp_path):
    requests = tmp_path / "requests.jsonl"
    assert step(prompts(2), "--batch", requests).code == 0
    before = requests.read_bytes()
    ran = step(prompts(3), "--batch", requests)
    assert ran.code == 2 and "exists" in ran.err and requests.read_bytes() == before


def test_large_batches_are_several_files(step, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    ran = step(prompts(10), "--batch", tmp_path / "r.jsonl")
    names = [str(tmp_path / name) for name in ("r.jsonl", "r.2.jsonl", "r.3.jsonl")]
    assert ran.summary["files"] == names and [len(lines(name)) for name in names] == [4, 4, 2]
    monkeypatch.setattr(module, "MOST_BYTES", 500)
    ran = step(prompts(10), "--batch", tmp_path / "s.jsonl")
    assert all(Path(name).stat().st_size <= 500 for name in ran.summary["files"])
    (tmp_path / "t.2.jsonl").write_text("mine")
    ran = step(prompts(10), "--batch", tmp_path / "t.jsonl")
    assert ran.code == 2 and not (tmp_path / "t.jsonl").exists()


def test_nothing_is_left(step, prompts, cli, out, server, tmp_path):
    cli("collect", prompts(2), "--teacher", "openai:m", "--base-url", server.url, "--out", out)
    ran = step(prompts(2), "--batch", tmp_path / "r.jsonl")
    assert ran.summary["requests"] == 0 and not (tmp_path / "r.jsonl").exists()


def test_what_a_batch_cannot_do(step, prompts, out, answers, tmp_path):
    requests = tmp_path / "r.jsonl"
    ran = step(prompts([{"prompt": "a"}, {"turns": ["a", "b"]}]), "--batch", requests)
    assert ran.code == 2 and ":2: the row has several turns" in ran.err and not requests.exists()
    ran = step(prompts(1), "--batch", requests, teacher=f"replay:{answers([])}")
    assert ran.code == 2 and "no batches" in ran.err
    ran = step(prompts(1), "--batch", requests, "--batch-answers", requests)
    assert ran.code == 2 and "give one of them" in ran.err
    ran = step(prompts(1), "--batch", tmp_path / "none" / "r.jsonl")
    assert ran.code == 1 and "No such file or directory" in ran.err
    ran = step(prompts(1), "--batch-answers", tmp_path / "none.jsonl")
    assert ran.code == 1 and "none.jsonl" in ran.err
    ran = step(prompts(1), "--batch-answers", answers([{"id": 1}]))
    assert ran.code == 1 and "output.jsonl:1: no `custom_id`" in ran.err
    odd = answers([{"custom_id": "x", "response": {"body": 5}}, answer("y", completion("a"))])
    ran = step(prompts(1), "--batch-answers", odd)
    assert ran.code == 1 and "2 answers belong to no row" in ran.err and ran.summary["left"] == 1


def test_half_the_published_price(cli, prompts, out, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdefgh")
    words = ["collect", prompts(1), "--teacher", "openai:gpt-5-mini", "--out", out, "--json"]
    assert cli(*words, "--batch", tmp_path / "r.jsonl").code == 0
    body = completion("x") | {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}}
    [row] = lines(tmp_path / "r.jsonl")
    ran = cli(*words, "--batch-answers", answers([answer(row["custom_id"], body)]))
    from distill.collection.budget import find_price

    full = find_price("https://api.openai.com/v1", "gpt-5-mini")
    assert ran.summary["usd"] == pytest.approx((full.input + full.output) / 2)


def vllm_run_batch(requests: Path, results: Path) -> None:
    """What `vllm run-batch -i REQUESTS -o RESULTS --model m` reads and writes: OpenAI's lines, in any order.

    After vLLM's `BatchRequestInput` and `BatchRequestOutput`: a failed request has a response with another status and
    no body, and the error beside it.
    """
    with open(results, "w", encoding="utf-8") as file:
        for number, row in enumerate(reversed(lines(requests))):
            assert set(row) == {"custom_id", "method", "url", "body"}
            assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
            assert "stream" not in row["body"] and row["body"]["model"] == "m"
            response = {"status_code": 200, "request_id": f"vllm-batch-{number}", "body": completion("local")}
            error = None
            if number == 0:
                response |= {"status_code": 400, "body": None}
                error = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
            line = {"id": f"vllm-{number}", "custom_id": row["custom_id"], "response": response, "error": error}
            file.write(json.dumps(line) + "\n")


def test_vllms_batch_runner(step, prompts, out, read, failures, tmp_path):
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    assert step(prompts(4), "--batch", requests, "-T", "stream=true").code == 0
    vllm_run_batch(requests, results)
    ran = step(prompts(4), "--batch-answers", results)
    assert (ran.code, ran.summary["rows"], ran.summary["failed"]) == (1, 3, 1), ran.err
    assert [row["messages"][-1]["content"] for row in read(out)] == ["local"] * 3
    assert "too long" in failures()[0]["error"]


def test_anthropics_message_batches(step, prompts, out, read, failures, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
    requests = tmp_path / "requests.jsonl"
    words = ["--max-tokens", 7, "--system", "s", "-T", "stream=true"]
    assert step(prompts(5), "--batch", requests, *words, teacher="anthropic:m").code == 0
    asked = lines(requests)
    assert asked[0]["params"] == {
        "model": "m", "max_tokens": 7, "system": "s", "messages": [{"role": "user", "content": "prompt 0"}]
    }  # fmt: skip
    assert all(set(row) == {"custom_id", "params"} for row in asked)
    ids = [row["custom_id"] for row in asked]
    assert all(len(id) <= 64 and id.isalnum() for id in ids), "as the API wants them"
    message = {
        "type": "message", "role": "assistant", "model": "m-1", "content": [{"type": "text", "text": "good"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    invalid = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}}
    results = answers(
        [
            {"custom_id": ids[0], "result": {"type": "expired"}},
            {"custom_id": ids[1], "result": {"type": "errored", "error": invalid}},
            {"custom_id": ids[2], "result": {"type": "canceled"}},
            {"custom_id": ids[3], "result": {"type": "succeeded", "message": message}},
        ]
    )
    again = answers([{"custom_id": ids[0], "result": {"type": "succeeded", "message": message}}], "again.jsonl")
    files = ["--batch-answers", results, "--batch-answers", again]
    ran = step(prompts(5), *files, *words, teacher="anthropic:m")
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["left"]) == (1, 2, 2, 1), ran.err
    assert [row["id"] for row in read(out)] == [ids[0], ids[3]]
    assert read(out)[0]["metadata"]["finish_reason"] == "stop"
    assert {row["error"] for row in failures()} == {
        "error from https://api.anthropic.com/v1/messages: prompt is too long",
        "the batch left the request unanswered: canceled",
    }
