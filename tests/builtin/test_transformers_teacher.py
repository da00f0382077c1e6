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


def test_its_log_probabilities_are_the_models_own(bloom):
    """Raw, at temperature 1, whatever the answer was sampled with; the written token is always among those told."""
    import numpy as np
    import torch

    from distill.soft_labels.rows import parse_logprobs

    teacher = build(TransformersOptions(batch_size=4, logprobs=3), str(bloom))
    plain = build(TransformersOptions(batch_size=4), str(bloom))
    asked = [request(text, temperature=2.0, seed=3) for text in ("a", "bb", "c d e")] + [request("greedy")]
    answers = teacher.ask_batch(asked)
    assert [one.message for one in answers] == [one.message for one in plain.ask_batch(asked)]
    chat = teacher._loaded()
    for one, answer in zip(asked, answers, strict=True):
        told = parse_logprobs(answer.logprobs)
        prompt = chat.encoder.prompt(one.messages)
        ids = torch.tensor([prompt + told.ids.tolist()])
        with torch.inference_mode():
            logits = chat.model(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        wanted = logits.gather(1, torch.tensor(told.ids.tolist())[:, None])[:, 0]
        np.testing.assert_allclose(told.logprobs, wanted, atol=1e-3)
        np.testing.assert_allclose(told.top_logprobs, logits.topk(3).values, atol=5e-3)
        assert told.origin.raw and told.origin.temperature == (one.params.temperature or 0.0)
        assert told.origin.top_p == 1 and told.end == int(told.ids[-1] == chat.stop)


def test_the_models_own_sampling_settings_do_not_shape_a_plain_sample(bloom):
    teacher = build(TransformersOptions(logprobs=2), str(bloom))
    own = teacher._loaded().model.generation_config
    own.top_p, own.repetition_penalty = 0.01, 5.0
    answers = {teacher.ask_batch([request("b", temperature=5.0, seed=seed)])[0].message.content for seed in range(4)}
    assert len(answers) > 1  # with top-p 0.01 they would all be alike


def test_a_batch_is_divided_until_the_one_row_is_found_that_fails(teacher, monkeypatch):
    """Out of memory for a long prompt, and any other error for one: their neighbours are answered."""
    model, asked = teacher._loaded(), [request(text) for text in ("a", "b", "long " * 30, "c", "broken", "d")]
    generate, sizes = type(model).generate, []

    def failing(self, conversations, **settings):
        texts = [messages[-1].content for messages in conversations]
        sizes.append(len(texts))
        if any(text.startswith("long") for text in texts):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")
        if "broken" in texts:
            raise IndexError("index out of range in self")
        return generate(self, conversations, **settings)

    monkeypatch.setattr(type(model), "generate", failing)
    answers = teacher.ask_batch(asked)
    assert [isinstance(answer, Answer) for answer in answers] == [True, True, False, True, False, True]
    assert "out of memory; the prompt has" in answers[2].message and "IndexError" in answers[4].message
    assert max(sizes[1:]) <= 3
    assert len(teacher.ask_batch(asked[:2])) == 2 and sizes[-1] == 1, "what did not fit is not tried again"


def test_a_prompt_beyond_the_models_positions_is_named_before_it_is_asked(teacher, monkeypatch):
    model = teacher._loaded()
    monkeypatch.setattr(model, "max_length", 40)
    sizes = []
    generate = type(model).generate
    monkeypatch.setattr(
        type(model),
        "generate",
        lambda *words, **settings: sizes.append(settings["max_tokens"]) or generate(*words, **settings),
    )
    short, near, long = teacher.ask_batch([request("a"), request("b " * 12), request("b " * 50)])
    assert isinstance(short, Answer) and isinstance(near, Answer) and isinstance(long, TeacherError)
    assert "takes 40 with the answer" in long.message and "the prompt has" in long.message
    assert all(size <= 6 for size in sizes)
