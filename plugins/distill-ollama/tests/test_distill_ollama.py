"""What goes to an Ollama server and what is made of its answers, over real HTTP; and every common fault of a server."""

from __future__ import annotations

import asyncio

import distill_ollama
import pytest
from distill_ollama import Ollama, OllamaOptions, server

import distill
from distill import Message, Params, Request, TeacherError, UsageError
from distill.testing import FaultyServer, Reply, check_http_teacher, load_plugin

CALL = {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def answer(content="4", **fields):
    """What Ollama 0.12 answers with `stream: false`."""
    return {
        "model": "qwen3:0.6b",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content, **fields.pop("message", {})},
        "done": True,
        "done_reason": "stop",
        "total_duration": 1,
        "prompt_eval_count": 11,
        "eval_count": 2,
        **fields,
    }


QUESTION = Request([Message("user", "2 + 2?")])


def ask(reply, request=QUESTION, **options):
    """Ask a server that gives this reply; gives the answer, and the body that was sent."""

    async def once(url):
        teacher = Ollama(OllamaOptions(base_url=url, **options), "qwen3:0.6b")
        try:
            return await teacher.ask(request)
        finally:
            await teacher.close()

    with FaultyServer([reply if isinstance(reply, Reply) else Reply(reply)]) as running:
        got = asyncio.run(once(running.origin))
        assert [asked.path for asked in running.asked] == ["/api/chat"]
        return got, running.asked[0].body


def test_it_keeps_the_contract_of_teachers_on_good_and_bad_servers():
    check_http_teacher(
        lambda url: Ollama(OllamaOptions(base_url=url, timeout=20), "qwen3:0.6b"), good=lambda asked: answer(asked.text)
    )


def test_it_registers_its_name():
    spec = load_plugin(distill_ollama).teachers.get("ollama")
    assert isinstance(spec.build(spec.options(), "m"), distill.Teacher)
    with pytest.raises(UsageError, match="needs a model"):
        spec.build(spec.options(), None)


def test_a_plain_question():
    got, sent = ask(answer())
    assert (got.message, got.finish_reason, got.model) == (Message("assistant", "4"), "stop", "qwen3:0.6b")
    assert got.usage == {"prompt_tokens": 11, "completion_tokens": 2}
    assert sent == {
        "model": "qwen3:0.6b",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "options": {},
        "stream": False,
        "truncate": False,
    }


def test_parameters_and_options_are_sent():
    request = Request([Message("user", "a")], params=Params(max_tokens=9, temperature=0.0, seed=3))
    sent = ask(answer(), request, num_ctx=8192, think=False, keep_alive="30m")[1]
    assert sent["options"] == {"num_predict": 9, "temperature": 0.0, "seed": 3, "num_ctx": 8192}
    assert (sent["think"], sent["keep_alive"]) == (False, "30m")


def test_reasoning_and_a_cut_answer():
    got, _ = ask(answer(message={"thinking": "Two and two."}, done_reason="length"))
    assert (got.message.reasoning_content, got.finish_reason) == ("Two and two.", "length")


def test_tool_calls_there_and_back():
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    got, sent = ask(answer("", message={"tool_calls": [call]}), Request([Message("user", "1?")], tools=[TOOL]))
    assert (got.message.tool_calls, got.finish_reason) == ((CALL,), "tool_calls")
    assert sent["tools"] == [TOOL]
    history = [Message("user", "1?"), got.message, Message("tool", "one", tool_call_id="call_0")]
    assert ask(answer(), Request(history))[1]["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "one", "tool_name": "add"},
    ]


def test_a_model_that_is_not_there():
    with pytest.raises(TeacherError, match="model 'x' not found") as caught:
        ask(Reply({"error": "model 'x' not found"}, 404))
    assert caught.value.fatal and caught.value.hint == "`ollama pull qwen3:0.6b`, or check --base-url"


def test_errors_show_no_password():
    async def once(url):
        teacher = Ollama(OllamaOptions(base_url=url.replace("//", "//me:secret@")), "m")
        try:
            return await teacher.ask(QUESTION)
        finally:
            await teacher.close()

    with FaultyServer([Reply({"error": "busy"}, 503)]) as running, pytest.raises(TeacherError) as caught:
        asyncio.run(once(running.origin))
    assert caught.value.message == f"HTTP 503 from {running.origin}/api/chat: busy"
    assert running.asked[0].headers["authorization"].startswith("Basic ")


def test_an_answer_that_is_not_done_is_asked_for_again():
    with pytest.raises(TeacherError, match="no whole answer") as caught:
        ask(answer(done=False))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("https://ollama.example/", "https://ollama.example"),
    ],
)
def test_what_ollama_host_may_hold(host, url):
    assert server(host) == url
