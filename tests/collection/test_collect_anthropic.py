"""Anthropic's Messages API, asked through the same client as OpenAI's."""

from __future__ import annotations

import pytest

from distill.testing import FaultyServer, Reply

KEY = "sk-ant-0123456789abcdefghij"


def message(*blocks, stop="end_turn", **usage):
    """A whole response; a text stands for a text block."""
    content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    usage = {"input_tokens": 3, "output_tokens": 2} | usage
    kind = {"type": "message", "role": "assistant", "model": "served", "stop_reason": stop}
    return kind | {"content": content, "usage": usage}


def error(kind, text, status):
    return Reply({"type": "error", "error": {"type": kind, "message": text}}, status)


@pytest.fixture
def ask(cli, prompts, out, monkeypatch):
    """Collect from a server that follows a script."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY + "\n")

    def run(script, rows=1, *argv, base=lambda url: url.removesuffix("/v1")):
        with FaultyServer(script) as server:
            words = ["collect", prompts(rows), "--teacher", "anthropic:m", "--base-url", base(server.url), "--out", out]
            return cli(*words, "--json", *argv), server

    return run


def test_the_request_that_is_sent(ask, read, out):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "f", "description": "F.", "parameters": schema}}]
    history = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "let me see", "tool_calls": [call, {**call, "id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]
    script = [Reply(message("fine", cache_read_input_tokens=5, cache_creation_input_tokens=1))]
    words = ["--max-tokens", 7, "--temperature", 0.5, "-T", 'body={"top_k": 3}']
    ran, server = ask(script, [{"messages": history, "tools": tools}], *words)
    assert ran.code == 0, ran.err
    [asked] = server.asked
    assert asked.path == "/v1/messages"
    assert asked.headers["x-api-key"] == KEY and asked.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in asked.headers
    use = {"type": "tool_use", "name": "f", "input": {"x": 1}}
    assert asked.body == {
        "model": "m",
        "max_tokens": 7,
        "system": "s",
        "temperature": 0.5,
        "top_k": 3,
        "tools": [{"name": "f", "description": "F.", "input_schema": schema}],
        "messages": [
            {"role": "user", "content": "u"},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "let me see"}, {**use, "id": "c1"}, {**use, "id": "c2"}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
                ],
            },
        ],
    }
    [row] = read(out)
    assert row["messages"][-1] == {"role": "assistant", "content": "fine"}
    usage = row["metadata"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["input_tokens"]) == (9, 2, 3)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 5}
    assert row["metadata"]["model"] == "served"


def test_full_fidelity(ask, read, out, failures):
    thinking = {"type": "thinking", "thinking": "hm", "signature": "x"}
    replies = {
        "prompt 0": message(thinking, "two ", "blocks"),
        "prompt 1": message({"type": "tool_use", "id": "t", "name": "f", "input": {"ä": 1}}, stop="tool_use"),
        "prompt 2": message("cut he", stop="max_tokens"),
        "prompt 3": message("I will not", stop="refusal"),
        "prompt 4": message(),
        "prompt 5": message("half \ud83d"),
        "prompt 6": message({"type": "image", "source": {}}, "see"),
    }
    ran, _ = ask(lambda asked: Reply(replies[asked.text]), 7)
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["cut"]) == (1, 4, 3, 1)
    rows = {row["messages"][0]["content"]: row for row in read(out)}
    assert rows["prompt 0"]["messages"][-1]["reasoning_content"] == "hm"
    assert rows["prompt 0"]["messages"][-1]["content"] == "two blocks"
    assert rows["prompt 1"]["messages"][-1]["tool_calls"] == [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"ä": 1}'}}
    ]
    finish = [rows[f"prompt {n}"]["metadata"]["finish_reason"] for n in (0, 1, 2)]
    assert finish == ["stop", "tool_calls", "length"]
    assert rows["prompt 5"]["messages"][-1]["content"] == "half \ufffd"
    assert sorted(row["error"] for row in failures()) == [
        "the answer is empty",
        "the answer is not text alone: it has a block `image`",
        "the teacher refused: I will not",
    ]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (error("authentication_error", f"invalid x-api-key {KEY}", 401), "ANTHROPIC_API_KEY"),
        (error("not_found_error", "model: m", 404), "model 'm'"),
        (error("invalid_request_error", "Your credit balance is too low", 400), "money is used up"),
    ],
)
def test_what_every_request_would_meet_stops_the_run(ask, reply, says):
    ran, server = ask(lambda asked: reply, 100, "--concurrency", 3)
    assert ran.code == 1 and says in ran.err and len(server.asked) <= 3
    assert ran.err.count("Error:") == 1 and KEY not in ran.err


def test_overloaded_servers_are_asked_again(ask):
    script = [error("overloaded_error", "Overloaded", 529), error("api_error", "x", 500), Reply(message("a"))]
    ran, server = ask([*script, Reply({"type": "message", "content": None}), Reply(message("b"))], 2)
    assert ran.code == 0, ran.err
    assert len(server.asked) == 5


def test_signed_thinking_goes_back_as_it_came(ask):
    thinking = {"type": "thinking", "thinking": "hm", "signature": "x"}
    hidden = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    ran, server = ask(lambda asked: Reply(message(thinking, hidden, "yes")), [{"turns": ["a", "b"]}])
    assert ran.code == 0, ran.err
    sent = server.asked[1].body["messages"][1]
    assert sent == {"role": "assistant", "content": [thinking, hidden, {"type": "text", "text": "yes"}]}


def test_turns_and_the_default_limit(ask, read, out):
    ran, server = ask(lambda asked: Reply(message("yes")), [{"turns": ["a", "b"], "system": "s"}])
    assert ran.code == 0, ran.err
    assert [asked.body["max_tokens"] for asked in server.asked] == [4096, 4096]
    assert [one["role"] for one in server.asked[1].body["messages"]] == ["user", "assistant", "user"]
    assert [one["role"] for one in read(out)[0]["messages"]] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/messages"])
def test_base_urls(ask, tail):
    ran, server = ask(lambda asked: Reply(message("x")), base=lambda url: url.removesuffix("/v1") + tail)
    assert ran.code == 0 and server.asked[0].path == "/v1/messages"


def test_what_the_api_does_not_have(ask, cli, prompts, out, monkeypatch):
    ran, server = ask((), 5, "--seed", 1)
    assert ran.code == 1 and "no seed" in ran.err and not server.asked
    ran, _ = ask((), 1, "--logprobs", 2)
    assert ran.code == 2 and "no --logprobs" in ran.err
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    ran = cli("collect", prompts(1), "--teacher", "anthropic:m", "--out", out)
    assert ran.code == 2 and "ANTHROPIC_API_KEY is not set" in ran.err
    assert cli("collect", prompts(1), "--teacher", "anthropic", "--out", out).code == 2
    assert cli("collect", prompts(1), "--teacher", "anthropic:m", "-T", "max_tokens=0", "--out", out).code == 2


def test_it_has_a_published_price(cli, prompts, out):
    words = ["collect", prompts(5), "--teacher", "anthropic:claude-sonnet-4-5", "--out", out, "--dry-run"]
    told = cli(*words, "--json").summary
    assert 0 < told["usd"] < told["usd_at_most"] < 1
