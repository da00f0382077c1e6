"""OpenAI's Responses API: another shape on the way, the same row in the file."""

from __future__ import annotations

import json

import pytest

from distill.testing import FaultyServer, Reply


def response(text="Perro.", status="completed", items=(), **more):
    content = [{"type": "output_text", "text": text, "annotations": []}] if text is not None else []
    message = {"type": "message", "role": "assistant", "content": content}
    usage = {
        "input_tokens": 9,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
    }
    output = [*items, *([message] if content else [])]
    return {
        "object": "response",
        "model": "served",
        "status": status,
        "error": None,
        "output": output,
        "usage": usage,
    } | more


THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "A dog is perro."}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"q": "dog"}'}
WORDS = ("-T", "api=responses")


def test_a_row_like_any_other(ask, out, read, prompts):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    row = {"prompt": "dog?", "system": "Be brief.", "tools": tools}
    words = [*WORDS, "--max-tokens", 20, "--temperature", 0, "-T", 'body={"reasoning": {"summary": "auto"}}']
    ran, server = ask(lambda asked: Reply(response(items=[THOUGHT])), *words, file=prompts([row]))
    assert ran.code == 0, ran.err
    (asked,) = server.asked
    assert asked.path == "/v1/responses"
    assert asked.body == {
        "model": "m",
        "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "dog?"}],
        "store": False,
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}],
        "max_output_tokens": 20,
        "temperature": 0.0,
        "reasoning": {"summary": "auto"},
    }
    (kept,) = read(out)
    answer = {"role": "assistant", "content": "Perro.", "reasoning_content": "A dog is perro."}
    assert kept["messages"][-1] == answer
    metadata = kept["metadata"]
    assert (metadata["finish_reason"], metadata["model"]) == ("stop", "served")
    assert metadata["usage"]["prompt_tokens"] == 9 and metadata["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


def test_tool_calls_and_their_results(ask, out, read, prompts):
    conversation = [
        {"role": "user", "content": "dog?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c0", "content": "perro"},
    ]  # fmt: skip
    script = lambda asked: Reply(response(None, items=[CALL]))  # noqa: E731
    ran, server = ask(script, *WORDS, file=prompts([{"messages": conversation}]))
    assert ran.code == 0, ran.err
    assert server.asked[0].body["input"][1:] == [
        {"type": "function_call", "call_id": "c0", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c0", "output": "perro"},
    ]
    (kept,) = read(out)
    assert kept["metadata"]["finish_reason"] == "tool_calls"
    assert kept["messages"][-1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": "dog"}'}}
    ]


ENDS = {
    "cut": (response("half", "incomplete", incomplete_details={"reason": "max_output_tokens"}), 0, "cut short"),
    "filtered": (response("half", "incomplete", incomplete_details={"reason": "content_filter"}), 1, "content filter"),
    "cancelled": (response("half", "cancelled"), 1, "'cancelled'"),
    "refused": (
        response(None, items=[{"type": "message", "content": [{"type": "refusal", "refusal": "I will not"}]}]),
        1,
        "I will not",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_that_are_no_good_ones(cli, prompts, out, name):
    body, code, says = ENDS[name]
    with FaultyServer(lambda asked: Reply(body)) as server:
        words = ["--teacher", "openai:m", "--base-url", server.url, "--out", out, *WORDS]
        ran = cli("collect", prompts(1), *words)
    assert ran.code == code and says in ran.err


def test_a_failed_response_is_asked_again(ask):
    failed = response(None, "failed", error={"code": "server_error", "message": "try again"})
    ran, _ = ask([Reply(failed), Reply({"output": None}), Reply(response())], *WORDS)
    assert (ran.code, ran.summary["requests"]) == (0, 3), ran.err


def test_streamed(ask, out, read):
    events = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "Per"},
        {"type": "response.completed", "response": response()},
    ]
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    broken = text[: text.index("event: response.completed")]
    headers = {"Content-Type": "text/event-stream"}
    script = [Reply(broken, headers=headers), Reply(text, headers=headers)]
    ran, server = ask(script, *WORDS, "-T", "stream=true")
    assert (ran.code, ran.summary["requests"]) == (0, 2), ran.err
    assert server.asked[0].body["stream"] is True and "stream_options" not in server.asked[0].body
    assert read(out)[0]["messages"][-1]["content"] == "Perro."


@pytest.mark.parametrize(
    ("words", "says"), [(["--logprobs", 2], "no log probabilities"), (["--seed", 1], "has no seed")]
)
def test_what_the_api_does_not_have_is_told(ask, words, says):
    ran, server = ask([], *WORDS, *words)
    assert ran.code in (1, 2) and says in ran.err and server.asked == []
