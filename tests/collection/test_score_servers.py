"""Scoring by a server: as the same model on this machine, within the limits of a collection, or one clear line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill.soft_labels.rows import parse_logprobs
from distill.testing import FaultyServer, Reply, completion

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHATS = [
    {"id": "a", "messages": [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi there!"}]},
    {
        "id": "b",
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "One."},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "Two, of course."},
        ],
    },
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny model that has a chat template."""
    from distill.testing import save_student, tiny_bloom

    made, tokenizer = tiny_bloom()
    tokenizer.chat_template = TEMPLATE
    return save_student(made, tokenizer, tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def vllm(model):
    """Answers like vLLM: prompt log probabilities of chats, and echoes of token ids."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    served, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)

    def table(ids: list[int], k: int) -> list[dict[int, float] | None]:
        with torch.inference_mode():
            logits = served(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        places: list[dict[int, float] | None] = [None]
        for place, id in enumerate(ids[1:]):
            likeliest = logits[place].topk(k).indices.tolist()
            places.append({one: float(logits[place, one]) for one in [id, *likeliest]})  # its own token first
        return places

    def text_of(id: int) -> str:
        return tokenizer.decode([id])

    def answer(asked) -> Reply:
        body = asked.body
        if asked.path.endswith("/chat/completions"):
            assert body["continue_final_message"] and not body["add_generation_prompt"] and body["max_tokens"] == 1
            text = tokenizer.apply_chat_template(body["messages"], tokenize=False, continue_final_message=True)
            ids = tokenizer(text, add_special_tokens=False).input_ids
            told = [
                row
                and {str(id): {"logprob": value, "decoded_token": tokenizer.decode([id])} for id, value in row.items()}
                for row in table(ids, body["prompt_logprobs"])
            ]
            return Reply({**completion("x"), "prompt_logprobs": told, "prompt_token_ids": ids})
        ids, k = body["prompt"], body["logprobs"]
        name = (
            (lambda id: f"token_id:{id}")
            if body.get("return_tokens_as_token_ids")
            else (lambda id: tokenizer.decode([id]))
        )
        rows = table([*ids, ids[-1]], k)  # and the one token that it writes
        logprobs = {
            "tokens": [name(id) for id in [*ids, ids[-1]]],
            "token_logprobs": [row and next(iter(row.values())) for row in rows],
            "top_logprobs": [row and {name(id): value for id, value in row.items()} for row in rows],
        }
        return Reply({**completion("x"), "choices": [{"index": 0, "text": "", "logprobs": logprobs}]})

    return answer


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return path


@pytest.fixture
def local(cli, model, data, tmp_path, read):
    """What the same model says on this machine."""
    ran = cli("score", data, "--teacher", f"transformers:{model}", "--logprobs", 3, "--out", tmp_path / "local.jsonl")
    assert ran.code == 0, ran.err
    return {row["id"]: row for row in read(tmp_path / "local.jsonl")}


def score(cli, data, out, server, *more):
    words = ["--teacher", "openai:m", "--base-url", server.url, "--logprobs", 3, "--out", out, "--json"]
    return cli("score", data, *words, *more)


@pytest.mark.parametrize("way", ["chat", "echo", "echo by text"])
def test_a_server_says_what_the_same_model_says_here(cli, model, vllm, data, out, read, local, way):
    def answer(asked):
        if way == "echo by text" and "return_tokens_as_token_ids" in asked.body:
            return Reply({"error": {"message": "unknown field return_tokens_as_token_ids"}}, 400)
        return vllm(asked)

    with FaultyServer(answer) as server:
        ran = score(cli, data, out, server, *([] if way == "chat" else ["-T", f"tokenizer={model}"]))
    assert ran.code == 0, ran.err
    assert (ran.summary["rows"], ran.summary["answers"], ran.summary["failed"]) == (2, 3, 0)
    for row in read(out):
        assert row["messages"] == local[row["id"]]["messages"] and row["metadata"]["scored_by"] == "openai:m"
        for told, wanted in zip(row["metadata"]["logprobs"], local[row["id"]]["metadata"]["logprobs"], strict=True):
            kept, here = parse_logprobs(told), parse_logprobs(wanted)
            count = len(here.tokens) - (here.end if way == "chat" else 0)  # vLLM's prompt ends before the marker
            assert kept.tokens == here.tokens[:count] and kept.origin.scored and kept.origin.raw
            np.testing.assert_allclose(kept.logprobs, here.logprobs[:count], atol=2e-3)
            np.testing.assert_allclose(kept.top_logprobs[:, 0], here.top_logprobs[:count, 0], atol=2e-3)
            if way == "echo":
                assert kept.ids.tolist() == here.ids.tolist() and kept.origin.tokenizer == here.origin.tokenizer
                np.testing.assert_array_equal(kept.top_ids[:, 0], here.top_ids[:, 0])
    assert cli("check", out, "--student", model).code == 0


def test_nothing_is_lost_or_scored_twice_when_a_server_is_troubled(cli, vllm, data, out, read):
    with FaultyServer(vllm) as server:
        assert score(cli, data, out, server, "--limit", 1).code == 0
        assert score(cli, data, out, server).summary["cached"] == 1
        assert len(server.asked) == 3
    out.unlink()
    tries: list[int] = []

    def troubled(asked):
        tries.append(1)
        return Reply({"error": {"message": "busy"}}, 503) if len(tries) % 2 else vllm(asked)

    with FaultyServer(troubled) as server:
        ran = score(cli, data, out, server, "--concurrency", 2)
    assert ran.code == 0 and [row["id"] for row in read(out)] in (["a", "b"], ["b", "a"]), ran.err


def test_the_budget_is_kept(cli, vllm, data, out):
    with FaultyServer(vllm) as server:
        ran = score(cli, data, out, server, "--price", "1000/1000", "--max-usd", "0.08", "--concurrency", 1)
    assert ran.code == 1 and ran.summary["rows"] == 1 and "budget" in ran.summary["stopped"]
    assert 0 < ran.summary["usd"] <= 0.08


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(completion("x")), "tells nothing of a prompt's tokens"),
        (Reply({"error": {"message": "Unrecognized request argument: prompt_logprobs"}}, 400), "prompt_logprobs"),
    ],
    ids=["ignored", "refused"],
)
def test_a_server_that_cannot_is_found_with_the_first_request(cli, data, out, reply, said):
    with FaultyServer(lambda asked: reply) as server:
        ran = score(cli, data, out, server)
        assert len(server.asked) == 1
    assert ran.code == 1 and said in ran.err and "transformers:MODEL" in ran.err


def test_another_models_tokenizer_is_found(cli, vllm, data, out, tmp_path, model):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(model)
    other.add_tokens(["Hi there"])
    other.save_pretrained(tmp_path / "other")
    with FaultyServer(lambda asked: _renamed(vllm, asked)) as server:
        ran = score(cli, data, out, server, "-T", f"tokenizer={tmp_path / 'other'}")
    assert ran.code == 1 and "not those that were sent" in ran.err and not out.read_bytes()


def _renamed(vllm, asked):
    """Answers as a server that does not know the last ids."""
    asked.body["prompt"] = [min(id, 50) for id in asked.body["prompt"]]
    return vllm(asked)


def test_more_than_text_needs_the_tokenizer(cli, vllm, tmp_path, out):
    rows = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "x", "reasoning_content": "why"}]
    rows.write_text(json.dumps({"id": "r", "messages": messages}) + "\n" + json.dumps(CHATS[0]) + "\n")
    with FaultyServer(vllm) as server:
        ran = score(cli, rows, out, server)
    assert ran.code == 1 and ran.summary["reasons"] == {"the answer is more than text": 1} and ran.summary["rows"] == 1
