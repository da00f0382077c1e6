"""Headers with values from the environment, fields that `body` must not override, proxies, and odd responses."""

from __future__ import annotations

import gzip
import json
import socket
from urllib.parse import urlsplit

import brotli
import pytest
from socks_proxy import SocksProxy

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

from distill.builtin.teachers.headers import make_headers
from distill.builtin.teachers.proxies import proxy_for
from distill.errors import UsageError
from distill.testing import FaultyServer, Reply, completion

SECRET = "azure-0123456789abcdef"


def test_a_header_from_the_environment_is_sent_and_never_shown(ask, out, monkeypatch):
    monkeypatch.setenv("AZURE_KEY", SECRET + "\n")
    script = [Reply({"error": {"message": f"bad header {SECRET}"}}, 500), Reply(completion(f"your key is {SECRET}"))]
    ran, server = ask(script, "-T", 'headers={"api-key": "$AZURE_KEY", "X-Title": "costs $$5"}')
    assert ran.code == 0, ran.err
    assert server.asked[0].headers["api-key"] == SECRET and server.asked[0].headers["x-title"] == "costs $5"
    assert "authorization" not in server.asked[0].headers
    assert SECRET not in out.read_text() + ran.err + ran.out and "your key is ***" in out.read_text()


def test_a_header_replaces_the_teachers_own(ask, key, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    ran, server = ask(lambda asked: None, "-T", 'headers={"authorization": "Token ${TOKEN}"}')
    assert ran.code == 0 and server.asked[0].headers["authorization"] == f"Token {SECRET}"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"api-key": "$NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL is not set"),
        ({"api-key": "sk-0123456789abcdefgh"}, "does not belong on the command line"),
        ({"Content-Length": "3"}, "cannot be set"),
        ({"two words": "x"}, "cannot be set"),
        ({"x": "line\nbreak"}, "characters"),
    ],
)
def test_headers_that_are_refused(cli, prompts, out, server, headers, says):
    words = ["--teacher", "openai:m", "--base-url", server.url, "--out", out]
    ran = cli("collect", prompts(1), *words, "-T", f"headers={json.dumps(headers)}")
    assert ran.code == 2 and says in ran.err and "sk-0123" not in ran.err
    assert server.asked == []


def test_a_literal_value_is_no_secret():
    assert make_headers({}, None, {"HTTP-Referer": "https://example.com/a-long-address"}).secrets == []


@pytest.mark.parametrize(
    ("field", "instead"),
    [("model", "--teacher"), ("n", "--samples"), ("max_tokens", "--max-tokens"), ("stream", "-T stream=true")],
)
def test_body_does_not_override_what_distill_sets(cli, prompts, out, server, field, instead):
    words = ["--teacher", "openai:m", "--base-url", server.url, "--out", out]
    ran = cli("collect", prompts(1), *words, "-T", f'body={{"{field}": 2}}')
    assert ran.code == 2 and f"body must not set '{field}'" in ran.err and instead in ran.err
    assert server.asked == []


def test_a_proxy_that_is_down_is_named_as_the_proxy(cli, prompts, out, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pass@127.0.0.1:{taken.getsockname()[1]}")
        words = ["--teacher", "openai:m", "--base-url", "http://teacher.example/v1", "--out", out, "--retries", 0]
        ran = cli("collect", prompts(1), *words)
    assert ran.code == 1
    assert "cannot reach the proxy http://127.0.0.1:" in ran.err and "(HTTP_PROXY)" in ran.err
    assert "user" not in ran.err and "NO_PROXY" in ran.err


def test_a_proxy_is_used_for_other_servers_only(cli, prompts, out, read, server, monkeypatch):
    monkeypatch.setenv("all_proxy", server.origin)
    words = ["--teacher", "openai:m", "--out", out]
    assert cli("collect", prompts(1), *words, "--base-url", "http://teacher.example/v1").code == 0
    assert server.asked[0].path == "http://teacher.example/v1/chat/completions"


def test_a_socks_proxy_carries_requests_and_looks_names_up(cli, prompts, out, read, server, monkeypatch):
    words = ["--teacher", "openai:m", "--base-url", "http://teacher.invalid/v1", "--out", out, "--retries", 0]
    with SocksProxy(urlsplit(server.origin).port) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://user:s%40cret@127.0.0.1:{proxy.port}")
        ran = cli("collect", prompts(3), *words, "--concurrency", 1)
        assert ran.code == 0, ran.err
        assert len(read(out)) == 3 and proxy.asked == ["teacher.invalid"], "one connection for all"
        assert proxy.logins == [("user", "s@cret")]
    out.unlink()
    ran = cli("collect", prompts(3), *words)
    assert ran.code == 1 and "cannot reach the proxy socks5h://127.0.0.1:" in ran.err and "(ALL_PROXY)" in ran.err
    assert "is the proxy running?" in ran.err and "cret" not in ran.err


@pytest.mark.parametrize(("code", "says"), [(5, "is the server running?"), (2, "check the proxy")])
def test_a_socks_proxy_that_refuses_is_named(cli, prompts, out, monkeypatch, code, says):
    with SocksProxy(1, refusal=code) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        words = ["--teacher", "openai:m", "--base-url", "http://teacher.invalid/v1", "--out", out, "--retries", 0]
        ran = cli("collect", prompts(3), *words)
    assert ran.code == 1 and f"the proxy socks5://127.0.0.1:{proxy.port} (ALL_PROXY) did not reach" in ran.err
    assert says in ran.err


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks5h://proxy:1080"])
def test_a_socks_proxy_needs_a_package_and_is_not_for_every_server(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert proxy_for("https://teacher.example/v1").is_socks
    assert proxy_for("http://127.0.0.1:8000/v1") is None
    monkeypatch.setattr("distill.builtin.teachers.proxies.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"\(ALL_PROXY\) is a SOCKS proxy, which needs the package aiohttp-socks"):
        proxy_for("https://teacher.example/v1")
    monkeypatch.setenv("NO_PROXY", "teacher.example")
    assert proxy_for("https://teacher.example/v1") is None


def test_the_scheme_decides_which_proxy(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert str(proxy_for("https://teacher.example/v1")) == "the proxy http://proxy.example:3128 (HTTPS_PROXY)"
    assert proxy_for("http://teacher.example/v1") is None


ODD = {
    "a header of 20 KB": Reply(completion("fine"), headers={"X-Limits": "x" * 20_000}),
    "gzip": Reply(gzip.compress(json.dumps(completion("fine")).encode()), headers={"Content-Encoding": "gzip"}),
    "brotli": Reply(brotli.compress(json.dumps(completion("fine")).encode()), headers={"Content-Encoding": "br"}),
    "zstd": Reply(zstd.compress(json.dumps(completion("fine")).encode()), headers={"Content-Encoding": "zstd"}),
    "a byte order mark": Reply(b"\xef\xbb\xbf" + json.dumps(completion("fine")).encode()),
    "nulls in the usage": Reply(
        completion("fine") | {"usage": {"prompt_tokens": 9, "completion_tokens": None, "prompt_tokens_details": None}}
    ),
    "text/plain": Reply(completion("fine"), headers={"Content-Type": "text/plain"}),
    "base_resp that says all is well": Reply(completion("fine") | {"base_resp": {"status_code": 0, "status_msg": ""}}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_responses_are_read(ask, out, read, name):
    ran, _ = ask(lambda asked: ODD[name])
    assert ran.code == 0, ran.err
    assert read(out)[0]["messages"][-1]["content"] == "fine"


def test_azures_address_keeps_its_query(cli, prompts, out, monkeypatch):
    monkeypatch.setenv("AZURE_KEY", SECRET)
    with FaultyServer() as server:
        url = f"{server.origin}/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
        words = ["--teacher", "openai:gpt", "--base-url", url, "--out", out]
        ran = cli("collect", prompts(1), *words, "-T", 'headers={"api-key": "$AZURE_KEY"}')
    assert ran.code == 0, ran.err
    assert server.asked[0].path == "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
