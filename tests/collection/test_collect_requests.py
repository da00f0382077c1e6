"""What is sent to a server, where to, and that the key stays secret."""

from __future__ import annotations

import json

import pytest

from distill.testing import FaultyServer, Reply, completion


def test_the_request_that_is_sent(ask, prompts, key):
    tools = [{"type": "function", "function": {"name": "f"}}]
    history = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a", "reasoning_content": "secret thoughts", "weight": 0},
        {"role": "user", "content": "v"},
    ]
    path = prompts([{"messages": history, "tools": tools}])
    words = ["--max-tokens", 5, "--temperature", 0, "--seed", 3, "-T", 'body={"top_p": 0.5}', "--system", "s"]
    ran, server = ask((), *words, file=path)
    assert ran.code == 0, ran.err
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {key}"
    assert asked.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "v"},
        ],
        "tools": tools,
        "max_tokens": 5,
        "temperature": 0,
        "seed": 3,
        "top_p": 0.5,
    }


def test_no_key_is_needed_elsewhere_and_no_netrc_or_proxy_is_used(ask, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    ran, server = ask(())
    assert ran.code == 0, ran.err
    assert "authorization" not in server.asked[0].headers


def test_a_proxy_from_the_environment(cli, prompts, out, monkeypatch):
    with FaultyServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        ran = cli("collect", prompts(1), "--teacher", "openai:m", "--base-url", "http://llm.example/v1", "--out", out)
        assert ran.code == 0, ran.err
        assert proxy.asked[0].path == "http://llm.example/v1/chat/completions"


def test_openai_itself_wants_a_key(cli, prompts, out):
    ran = cli("collect", prompts(1), "--teacher", "openai:m", "--out", out)
    assert ran.code == 2 and "OPENAI_API_KEY is not set" in ran.err


def test_a_malformed_key_does_not_show_itself(cli, prompts, out, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-with\nnewline")
    ran = cli("collect", prompts(1), "--teacher", "openai:m", "--out", out)
    assert ran.code == 2 and "OPENAI_API_KEY" in ran.err and "newline" not in ran.err


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://", "http://x:port/v1"])
def test_a_malformed_base_url(cli, prompts, out, url):
    ran = cli("collect", prompts(1), "--teacher", "openai:m", "--out", out, "--base-url", url)
    assert ran.code == 2 and "base URL" in ran.err


def test_the_base_url_may_have_a_query_or_end_in_the_endpoint(cli, prompts, out):
    with FaultyServer() as server:
        for n, tail in enumerate(["/", "/chat/completions", "?api-version=1"]):
            ran = cli(
                "collect", prompts(1), "--teacher", "openai:m", "--out", f"{out}{n}", "--base-url", server.url + tail
            )
            assert ran.code == 0, ran.err
        paths = [asked.path for asked in server.asked]
        assert paths == ["/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions?api-version=1"]


def test_the_key_never_leaks(spawn, prompts, tmp_path, out, key):
    """A hostile server echoes it wherever it can."""

    def script(asked):
        word = asked.headers["authorization"].removeprefix("Bearer ")
        replies = {
            "prompt 0": Reply(completion(f"your key is {word}", reasoning_content=word, refusal=None)),
            "prompt 1": Reply({"error": {"message": f"bad {word}"}}, 400),
            "prompt 2": Reply(f"broken {word}"),
            "prompt 3": Reply(completion(None, refusal=word)),
            "prompt 4": Reply(f"oops {word}", 500),
            "prompt 5": Reply({**completion("x"), "model": word, "usage": {word: 1}}),
            "prompt 6": Reply(json.dumps(completion(f"escaped {word}")).replace("sk-", "\\u0073k-")),
            "prompt 7": Reply("", 302, {"Location": f"http://{word}@x.example/{word}?k={word}"}),
        }
        return replies[asked.text]

    with FaultyServer(script) as server:
        words = ["--debug", "collect", prompts(8), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
        process = spawn(*words, "--retries", 0, "--concurrency", 1)
        shown, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(server.asked) == 8
    assert "redirects to http://x.example/***" in err
    written = shown + err + "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "your key is ***" in written
    assert key not in written


def test_a_short_dummy_key_does_not_spoil_answers(ask, out, read, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    ran, _ = ask([Reply(completion("EMPTY is a word"))])
    assert ran.code == 0 and read(out)[0]["messages"][-1]["content"] == "EMPTY is a word"


def test_more_logprobs_than_there_are(ask):
    ran, server = ask((), "--logprobs", 21)
    assert ran.code == 2 and "from 0 to 20" in ran.err and not server.asked


def test_reasoning_goes_back_where_the_server_demands_it(ask, prompts, out, read):
    """As DeepSeek does: without the reasoning of the turn before, the second turn is refused."""

    def script(asked):
        said = [one for one in asked.body["messages"] if one["role"] == "assistant"]
        if any("reasoning_content" not in one for one in said):
            return Reply({"error": {"message": "Missing `reasoning_content` field in the assistant message"}}, 400)
        return Reply(completion("sure", reasoning_content="hm"))

    ran, server = ask(script, "--concurrency", 1, file=prompts([{"turns": ["a", "b", "c"]}, {"turns": ["d", "e"]}]))
    assert ran.code == 0, ran.err
    assert len(server.asked) == 6, "it is refused once in a run"
    assert len(read(out)) == 2


@pytest.mark.parametrize(("value", "goes"), [("true", True), ("false", False)])
def test_reasoning_goes_back_or_not_as_told(ask, prompts, value, goes):
    def script(asked):
        return Reply(completion("sure", reasoning_content="hm"))

    words = ["-T", f"replay_reasoning={value}"]
    ran, server = ask(script, *words, file=prompts([{"turns": ["a", "b"]}]))
    assert ran.code == 0 and ("reasoning_content" in server.asked[1].body["messages"][1]) is goes


def test_nothing_of_the_key_is_on_a_command_line(cli, prompts, out):
    """There is no option that takes it, and a URL that holds one is refused without being shown."""
    words = ["collect", prompts(1), "--teacher", "openai:m", "--out", out]
    ran = cli(*words, "--base-url", "http://user:sk-secret@127.0.0.1:9/v1")
    assert ran.code == 2 and "user or a password" in ran.err and "sk-secret" not in ran.err
    ran = cli(*words, "-T", "api_key=sk-secret")
    assert ran.code == 2 and "api_key_env" in ran.err and "sk-secret" not in ran.err
