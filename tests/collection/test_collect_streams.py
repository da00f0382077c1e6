"""Streamed answers, and thinking under every name: the same row as from a server that sends it whole."""

from __future__ import annotations

import json

import pytest

from distill.testing import FaultyServer, Reply

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}


def stream(*events, done=True):
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ("data: [DONE]\n\n" if done else "")
    return Reply(text.encode(), headers=EVENTS)


def delta(finish=None, **fields):
    return {"model": "served", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


CALLS = [
    delta(role="assistant", tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"q": '}}]),
    delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "see", "arguments": "{}"}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '"dog"}'}}]),
    delta("tool_calls"),
]


def test_a_stream_gives_the_row_of_a_whole_answer(ask, out, read):
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}}
    events = [
        delta(role="assistant", content="", reasoning_content="Dog "),
        delta(reasoning_content="is perro."),
        delta(content="Per"),
        delta(content="ro \ud83d."),
        delta("stop"),
        {"model": "served", "choices": [], "usage": usage},
    ]
    ran, server = ask(lambda asked: stream(*events), "-T", "stream=true", "--temperature", 0)
    assert ran.code == 0, ran.err
    assert server.asked[0].body["stream"] is True
    assert server.asked[0].body["stream_options"] == {"include_usage": True}
    (row,) = read(out)
    answer = {"role": "assistant", "content": "Perro \ufffd.", "reasoning_content": "Dog is perro."}
    assert row["messages"][-1] == answer
    assert row["metadata"]["usage"] == usage and row["metadata"]["model"] == "served"
    assert row["metadata"]["params"] == {"temperature": 0.0}, "how the answer travels does not change it"


def test_a_stream_may_be_odd(ask, out, read):
    """Comments first and the type of JSON, carriage returns, a second choice, and all of the message at the end."""
    whole = {"choices": [{"message": {"role": "assistant", "content": "Perro."}, "finish_reason": "stop"}]}
    other = {"choices": [{"index": 1, "delta": {"content": "Can."}, "finish_reason": "stop"}]}
    events = [delta(content="Per"), other, delta(content="ro."), whole]
    text = ": PROCESSING\n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    for reply in (Reply(text), Reply(text.replace("\n", "\r"), headers=EVENTS)):
        ran, _ = ask(lambda asked, reply=reply: reply)
        assert ran.code == 0, ran.err
        assert read(out)[0]["messages"][-1]["content"] == "Perro."
        out.unlink()


def test_tool_calls_come_in_pieces(ask, out, read):
    ran, _ = ask(lambda asked: stream(*CALLS))
    assert ran.code == 0, ran.err
    calls = read(out)[0]["messages"][-1]["tool_calls"]
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("c1", "look", '{"q": "dog"}'),
        ("c2", "see", "{}"),
    ]


def test_logprobs_of_a_stream(ask, out, read):
    def token(text):
        return {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}

    events = [delta(content="a"), delta("stop", content="b")]
    for event, text in zip(events, "ab", strict=True):
        event["choices"][0]["logprobs"] = {"content": [token(text)]}
    ran, _ = ask(lambda asked: stream(*events), "-T", "stream=true", "--logprobs", 0)
    assert ran.code == 0, ran.err
    [logprobs] = read(out)[0]["metadata"]["logprobs"]
    assert logprobs["tokens"] == ["a", "b"] and logprobs["logprobs"] == [-0.5, -0.5]


@pytest.mark.parametrize(
    "broken",
    [
        stream(delta(content="half"), done=False),
        stream(delta(content="half"), {"error": {"message": "upstream failed", "code": 502}}),
        Reply(b'data: {"choices": [{"delta": {"cont', headers=EVENTS),
        Reply(b": keep-alive\n\n", headers=EVENTS),
        stream(),
    ],
    ids=["no end", "an error event", "cut in an event", "comments only", "nothing but the end"],
)
def test_a_broken_stream_is_asked_again(ask, out, read, broken):
    ran, _ = ask([broken, stream(delta("stop", content="whole"))])
    assert ran.code == 0, ran.err
    assert [row["messages"][-1]["content"] for row in read(out)] == ["whole"]
    assert ran.summary["requests"] == 2


def test_the_deadline_is_for_the_whole_stream(ask):
    slow = Reply(stream(delta("stop", content="x" * 200)).body, headers=EVENTS, drip=0.02)
    ran, _ = ask(lambda asked: slow, "--timeout", 0.5, "--retries", 0)
    assert ran.code == 1 and "within 0.5 s" in str(ran.summary["reasons"])


def test_anthropics_stream(cli, prompts, out, read, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789abcdef")
    events = [
        {"type": "message_start", "message": {"model": "served", "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Per"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ro."}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q":'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ' "x"}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    with FaultyServer(lambda asked: Reply(text, headers=EVENTS)) as server:
        words = ["--teacher", "anthropic:m", "--base-url", server.origin, "-T", "stream=true", "--out", out]
        ran = cli("collect", prompts(1), *words)
    assert ran.code == 0, ran.err
    assert server.asked[0].body["stream"] is True
    (row,) = read(out)
    answer = row["messages"][-1]
    assert (answer["content"], answer["reasoning_content"]) == ("Perro.", "Hm.")
    assert json.loads(answer["tool_calls"][0]["function"]["arguments"]) == {"q": "x"}
    assert row["metadata"]["usage"]["completion_tokens"] == 7


THOUGHT = {
    "reasoning_content": {"reasoning_content": "Hm."},
    "reasoning": {"reasoning": "Hm."},
    "reasoning, null beside it": {"reasoning_content": None, "reasoning": "Hm."},
    "thinking": {"thinking": "Hm."},
    "details with text": {"reasoning_details": [{"type": "reasoning.text", "text": "H"}, {"text": "m."}]},
    "details with a summary": {"reasoning": "", "reasoning_details": [{"summary": "Hm."}]},
    "a part": {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Perro."}]},
    "a part of parts": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "text", "text": "Perro."},
        ]
    },
    "Google's part": {"content": [{"thought": True, "text": "Hm."}, {"text": "Perro."}]},
}


@pytest.mark.parametrize("name", THOUGHT)
def test_thinking_is_kept_under_every_name(ask, out, read, name):
    message = {"content": "Perro."} | THOUGHT[name]
    ran, _ = ask(lambda asked: Reply({"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert ran.code == 0, ran.err
    answer = read(out)[0]["messages"][-1]
    details = {"reasoning_details": message["reasoning_details"]} if "reasoning_details" in message else {}
    assert answer == {"role": "assistant", "content": "Perro.", "reasoning_content": "Hm."} | details


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Perro."}]
DETAILS = [
    {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "b3BhcXVl", "format": "anthropic-claude-v1", "index": 1},
]


@pytest.mark.parametrize(
    ("came", "option"),
    [
        ({"reasoning": "Hm."}, "true"),
        ({"reasoning_content": "Hm."}, "true"),
        ({"content": PARTS}, "true"),
        ({"reasoning_details": DETAILS}, "none"),  # nobody sends them who does not want them back
        ({"reasoning_details": DETAILS}, "true"),
    ],
)
def test_thinking_goes_back_as_it_came(ask, prompts, came, option):
    message = {"role": "assistant", "content": "Perro."} | came
    beside = {"reasoning": "Hm."} if "reasoning_details" in came else {}
    ran, server = ask(
        lambda asked: Reply({"choices": [{"message": message | beside, "finish_reason": "stop"}]}),
        *("-T", f"replay_reasoning={option}"),
        file=prompts([{"turns": ["dog?", "cat?"]}]),
    )
    assert ran.code == 0, ran.err
    assert server.asked[1].body["messages"][1] == message


def test_thinking_of_a_prompt_s_own_messages_goes_back_unless_that_is_switched_off(ask, prompts, out):
    answer = {"role": "assistant", "content": "Perro.", "reasoning_details": DETAILS}
    file = prompts([{"messages": [{"role": "user", "content": "dog?"}, answer, {"role": "user", "content": "cat?"}]}])
    assert ask([], file=file)[1].asked[0].body["messages"][1] == answer
    out.unlink()
    sent = ask([], "-T", "replay_reasoning=false", file=file)[1].asked[0].body["messages"][1]
    assert sent == {"role": "assistant", "content": "Perro."}


def test_streamed_details_are_put_together_as_whole_ones(ask, out, read):
    pieces = [
        {"type": "reasoning.text", "text": "H", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "m.", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
        DETAILS[1],
    ]
    signed = {"google": {"thought_signature": "c2ln"}}
    call = {"index": 0, "id": "t", "extra_content": signed, "function": {"name": "f", "arguments": "{}"}}
    deltas = [*({"reasoning_details": [piece]} for piece in pieces), {"content": "Perro.", "tool_calls": [call]}]
    ran, _ = ask(lambda asked: stream(*(delta(**one) for one in deltas), delta("stop"), "[DONE]"))
    assert ran.code == 0, ran.err
    answer = read(out)[0]["messages"][-1]
    assert answer["reasoning_details"] == DETAILS and answer["reasoning_content"] == "Hm."
    assert answer["tool_calls"][0]["extra_content"] == signed
