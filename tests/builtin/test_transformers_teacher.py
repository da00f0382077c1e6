"""A local model as teacher: batched, greedy and sampled."""

from __future__ import annotations

import json

import pytest

from distill import Answer, Message, Params, Request, TeacherError, UsageError
from distill.builtin.teachers.transformers import TransformersOptions, build
from distill.cli.main import main


def request(text: str, **params) -> Request:
    return Request((Message("user", text),), params=Params(max_tokens=6, **params))


@pytest.fixture(scope="module")
def teacher(bloom):
    return build(TransformersOptions(batch_size=4), str(bloom))


def test_a_batch_of_mixed_requests_keeps_its_order(teacher):
    asked = [request("a"), request("b", temperature=1.0, seed=3), request("c"), request("d", temperature=1.0, seed=4)]
    answers = teacher.ask_batch(asked)
    assert all(isinstance(answer, Answer) and answer.message.role == "assistant" for answer in answers)
    assert answers == teacher.ask_batch(asked)  # sampling follows the seed
    assert answers[0] == teacher.ask_batch([asked[0]])[0]
    assert answers[0].usage["completion_tokens"] <= 6
    assert answers[0].finish_reason in ("stop", "length")


def test_sampling_differs_by_seed(teacher):
    drawn = {teacher.ask_batch([request("b", temperature=3.0, seed=seed)])[0].message.content for seed in range(4)}
    assert len(drawn) > 1


def test_a_request_that_cannot_be_rendered_fails_alone(teacher):
    call = Message("assistant", None, tool_calls=({"id": "1", "function": {"name": "f", "arguments": "{}"}},))
    bad = Request((Message("user", "a"), call, Message("user", "b")), params=Params(max_tokens=6))
    answers = teacher.ask_batch([request("a"), bad, request("c")])
    assert isinstance(answers[1], TeacherError) and "tool call" in answers[1].message
    assert isinstance(answers[0], Answer) and isinstance(answers[2], Answer)


def test_it_needs_a_model():
    with pytest.raises(UsageError, match="needs a model"):
        build(TransformersOptions(), None)


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path, capfd):
    (tmp_path / "prompts.txt").write_text("hello\n")
    words = ["collect", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out.jsonl")]
    assert main([*words, "--teacher", "transformers:./none"]) == 1
    err = capfd.readouterr().err
    assert "./none" in err and "Traceback" not in err and err.count("Error:") == 1


def test_collect_with_a_local_model(bloom, tmp_path, capsys):
    """A random model's answers may be blank; those rows are set apart, and none is lost."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"turns": ["hello", "and now?"]}\n{"prompt": "one"}\n{"prompt": "two"}\n')
    out = tmp_path / "out.jsonl"
    words = ["collect", str(prompts), "--teacher", f"transformers:{bloom}", "--out", str(out), "--max-tokens", "5"]
    main([*words, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] + summary["failed"] == 3
    for line in out.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["metadata"]["params"]["formatter"] == "chat-template"
        assert row["metadata"]["usage"]["completion_tokens"] <= 10
