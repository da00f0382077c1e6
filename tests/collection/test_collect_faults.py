"""Every fault of a server has its own clear end: an answer after all, a failed row, or a run that stops."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from distill.testing import FaultyServer, Reply, completion

HTML = Reply("<html>Bad gateway</html>", 200, {"Content-Type": "text/html"})


GOOD = completion("fine")
RETRIED = {
    "429": Reply({"error": {"message": "slow down"}}, 429),
    "429 with Retry-After": Reply("", 429, {"Retry-After": "0"}),
    "500": Reply("oops", 500),
    "502 with a page": Reply("<html>Bad gateway</html>", 502, {"Content-Type": "text/html"}),
    "503": Reply({"error": "loading"}, 503),
    "408": Reply("", 408),
    "reset": Reply(reset=True),
    "closed without an answer": Reply(raw=b""),
    "not HTTP": Reply(raw=b"hello\r\n\r\n"),
    "truncated": Reply(GOOD, cut=40),
    "truncated, length unknown": Reply(
        raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b'{"choices": [{"mess'
    ),
    "truncated chunks": Reply(raw=b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"cho\r\n'),
    "damaged gzip": Reply(b"no gzip at all", headers={"Content-Encoding": "gzip"}),
    "empty body": Reply(b""),
    "broken JSON": Reply(b'{"choices": [}'),
    "not UTF-8": Reply(b'{"choices": "\xff"}'),
    "deep JSON": Reply(b"[" * 100_000),
    "a JSON list": Reply([1]),
    "an error object": Reply({"error": {"message": "upstream failed", "code": 502}}),
    "choices null": Reply({"choices": None}),
    "choices empty": Reply({"choices": []}),
    "no choices": Reply({"id": "x"}),
    "no message": Reply({"choices": [{"finish_reason": "stop"}]}),
    "tool calls of another shape": Reply(completion(None, tool_calls=["f"])),
}


@pytest.mark.parametrize("name", RETRIED)
def test_asked_again_and_answered(ask, out, read, failures, name):
    ran, server = ask([RETRIED[name], Reply(GOOD)])
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 1 and ran.summary["requests"] == 2 == len(server.asked)
    assert [row["messages"][-1]["content"] for row in read(out)] == ["fine"]
    assert failures() == []


@pytest.mark.parametrize("name", RETRIED)
def test_given_up_after_the_retries(ask, out, failures, name):
    def script(asked):
        return RETRIED[name] if asked.text == "prompt 0" else None

    ran, server = ask(script, "--retries", 2, count=3, file=None)
    assert ran.code == 1
    asked = server.texts().count("prompt 0")
    if name in ("reset", "closed without an answer"):  # a broken connection that was reused costs no try
        assert 3 <= asked <= 5
    elif not name.startswith("429"):  # which costs a try only where nobody else gets an answer
        assert asked == 3
    assert ran.summary["rows"] == 2 and ran.summary["failed"] == 1
    [row] = failures()
    assert row["prompt"]["messages"] == [{"role": "user", "content": "prompt 0"}]
    assert row["source"]["line"] == 1 and row["error"] and row["error"].isprintable()


def test_a_hanging_server_and_a_slow_drip_end_in_time(ask, out):
    for fault in (Reply(hang=True), Reply(GOOD, drip=0.05)):
        began = time.monotonic()
        ran, _ = ask([fault, Reply(GOOD)], "--timeout", "0.5")
        assert ran.code == 0, ran.err
        assert time.monotonic() - began < 3
        out.unlink()
    ran, _ = ask(lambda asked: Reply(hang=True), "--timeout", "0.2", "--retries", 0)
    assert ran.code == 1 and ran.summary["reasons"] == {next(iter(ran.summary["reasons"])): 1}, (
        "a timeout fails the row only"
    )
    assert "within 0.2 s" in next(iter(ran.summary["reasons"]))


FATAL = {
    "401": (Reply({"error": {"message": "wrong key"}}, 401), "wrong key", "OPENAI_API_KEY"),
    "402": (Reply({}, 402), "402", "money"),
    "403": (Reply("", 403), "403", "OPENAI_API_KEY"),
    "404": (Reply({"detail": "no such model"}, 404), "no such model", "/v1"),
    "quota": (Reply({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), "pay", "quota"),
    "302": (
        Reply("", 302, {"Location": "https://u:p@x.example/y?token=t"}),
        "redirects to https://x.example/y",
        "--base",
    ),
    "307 to nowhere": (Reply("", 307), "redirects", "--base-url"),
    "a page": (HTML, "a web page", "--base-url"),
    "a page that says it is JSON": (Reply("<!doctype html>"), "a web page", "--base-url"),
}


@pytest.mark.parametrize("name", FATAL)
def test_what_every_request_would_meet_stops_the_run(ask, name):
    reply, says, hint = FATAL[name]
    ran, server = ask(lambda asked: reply, "--concurrency", 4, count=500)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and says in errors[0] and "teacher openai:m" in errors[0]
    assert hint in ran.err
    assert len(server.asked) <= 4
    assert ran.out == "" and "token=t" not in ran.err and "u:p" not in ran.err


def test_a_fatal_error_after_good_answers_is_the_rows_own(ask, out, read, failures):
    def script(asked):
        return Reply({}, 401) if asked.text == "prompt 30" else None

    ran, _ = ask(script, "--concurrency", 3, "--retries", 2, count=200)
    assert ran.code == 1
    assert (ran.summary["rows"], ran.summary["failed"], ran.summary["stopped"]) == (199, 1, None)
    assert "HTTP 401" in failures()[0]["error"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_not_sent_again(ask, failures, status):
    def script(asked):
        return Reply({"error": {"message": "too long"}}, status) if asked.text == "prompt 1" else None

    ran, server = ask(script, count=3)
    assert (ran.code, len(server.asked), ran.summary["rows"]) == (1, 3, 2)
    assert "too long" in failures()[0]["error"]


NO_ANSWER = {
    "null": (completion(None), "empty"),
    "blank": (completion(" \n"), "empty"),
    "missing": ({"choices": [{"message": {"role": "assistant"}}]}, "empty"),
    "a number": (completion(7), "empty"),
    "only reasoning": (completion("", "length", reasoning_content="hm"), "--max-tokens"),
    "refusal": (completion(None, refusal="I will not"), "I will not"),
    "filtered": (completion("half", "content_filter"), "content filter"),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_no_answer_to_learn_from_is_a_failed_row(ask, failures, out, name):
    body, says = NO_ANSWER[name]
    ran, server = ask(lambda asked: Reply(body))
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], len(server.asked)) == (1, 0, 1, 1)
    [row] = failures()
    assert says in row["error"]
    assert len(row["answers"]) == 1, "what was paid for is kept"
    assert out.read_bytes() == b""


def test_an_empty_answer_whose_generation_failed_is_asked_again(ask, out, read):
    ran, _ = ask([Reply(completion("", "network_error")), Reply(GOOD)])
    assert (ran.code, ran.summary["requests"]) == (0, 2), ran.err
    ran, server = ask(lambda asked: Reply(completion(None, "error")), "--retries", 2, "--append", "--seed", 1)
    assert (ran.code, len(server.asked)) == (1, 3)
    assert "the answer is empty: its finish reason is 'error'" in str(ran.summary["reasons"])


def test_full_fidelity(ask, out, read):
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    bodies = {
        "prompt 0": completion("sure", reasoning_content="first"),
        "prompt 1": completion("sure", reasoning="second"),
        "prompt 2": completion(None, "tool_calls", tool_calls=calls),
        "prompt 3": completion("cut he", "length"),
        "prompt 4": completion([{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]),
        "prompt 5": {"choices": [{"message": {"content": "bare"}, "logprobs": float("nan")}], "usage": None},
        "prompt 6": completion("half \ud83d and \ud83d\ude00"),
        "prompt 7": completion("x" * (1 << 20)),
        "prompt 8": completion("line\u2028sep\x85\x00\x1b[31m"),
    }
    ran, _ = ask(lambda asked: Reply(bodies[asked.text]), count=9)
    assert ran.code == 0, ran.err
    rows = {row["messages"][0]["content"]: row for row in read(out)}
    answers = [rows[f"prompt {n}"]["messages"][-1] for n in range(9)]
    assert answers[0] == {"role": "assistant", "content": "sure", "reasoning_content": "first"}
    assert answers[1]["reasoning_content"] == "second"
    assert answers[2] == {"role": "assistant", "content": None, "tool_calls": calls}
    assert answers[4]["content"] == "two parts"
    assert answers[5]["content"] == "bare"
    assert answers[6]["content"] == "half \ufffd and \U0001f600"
    assert len(answers[7]["content"]) == 1 << 20
    assert answers[8]["content"] == "line\u2028sep\x85\x00\x1b[31m"
    metadata = rows["prompt 0"]["metadata"]
    assert metadata["teacher"] == "openai:m" and metadata["model"] == "served-model"
    assert metadata["finish_reason"] == "stop" and metadata["sample"] == 0 and metadata["params"] == {}
    assert metadata["usage"] == completion()["usage"]
    assert metadata["source"]["line"] == 1 and metadata["created"].endswith("Z")
    assert rows["prompt 3"]["metadata"]["finish_reason"] == "length"
    assert rows["prompt 5"]["metadata"]["usage"] == {} and rows["prompt 5"]["metadata"]["finish_reason"] is None
    assert ran.summary["cut"] == 1
    assert ran.summary["usage"]["prompt_tokens_details"]["cached_tokens"] == 8


def test_retry_after_holds_all_workers_back(ask):
    """One gate: after a 429 nobody asks until the time has come, and nobody's retries are used up."""

    def script(asked):
        return Reply("", 429, {"Retry-After": "1"}) if asked.text == "prompt 20" and not refused else None

    refused = []

    def once(asked):
        reply = script(asked)
        if reply:
            refused.append(asked.at)
        return reply or Reply(completion("x"), delay=0.01)

    ran, server = ask(once, "--concurrency", 4, count=60)
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 60 and ran.summary["requests"] == 61
    quiet = [asked.at - refused[0] for asked in server.asked]
    assert not [at for at in quiet if 0.1 < at < 0.99]
    assert max(quiet) > 1


def test_a_tight_rate_limit_loses_no_row(ask):
    """More workers than the server allows: refused rows wait for their turn for as long as others get answers."""
    allowed = [0.0]

    def script(asked):
        if asked.at < allowed[0]:
            return Reply("", 429, {"Retry-After": "0.02"})
        allowed[0] = asked.at + 0.02
        return None

    ran, _ = ask(script, "--concurrency", 16, "--retries", 2, count=40)
    assert ran.code == 0, ran.err
    assert ran.summary["rows"] == 40


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("39600", 39600, 39600),
        ("-3", 0, 0),
        ("inf", None, None),
        ("7m54.3s", 474.3, 474.3),
        (lambda: str(int(time.time()) + 20), 17, 20),
        ("nan", None, None),
        ("soon", None, None),
        (lambda: formatdate(time.time() + 20, usegmt=True), 17, 20),
        (lambda: formatdate(0, usegmt=True), 0, 0),
        (None, None, None),
    ],
)
def test_retry_after_as_number_and_date(value, least, most):
    from distill.builtin.teachers.waits import retry_after

    seconds = retry_after(value() if callable(value) else value)
    assert seconds is None if least is None else least <= seconds <= most


def test_a_server_that_is_down_is_one_line(cli, prompts, out, failures):
    with FaultyServer() as server:
        url = server.url
    ran = cli("collect", prompts(3000), "--teacher", "openai:m", "--base-url", url, "--out", out, "--retries", 2)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 3, ran.err  # a warning at the first failure, Error and Hint
    assert "Connection refused" in ran.err and "is the server running?" in ran.err
    assert failures() == []


def test_a_server_that_goes_down_later_stops_the_run_too(ask, failures):
    def script(asked):
        return Reply("overloaded", 503) if len(served) >= 5 else served.append(1)

    served = []
    ran, server = ask(script, "--retries", 1, "--concurrency", 2, "--patience", 0, count=500)
    assert ran.code == 1
    assert "one after the other" in ran.err and "overloaded" in ran.err
    assert len(server.asked) < 40
    assert len(failures()) < 12


def test_an_unknown_host(cli, prompts, out):
    words = ["--teacher", "openai:m", "--base-url", "http://no-such-host.invalid/v1", "--retries", 0]
    ran = cli("collect", prompts(5), *words, "--out", out)
    assert ran.code == 1 and "cannot reach http://no-such-host.invalid/v1" in ran.err


def test_https_to_a_server_without_it(cli, prompts, out, server):
    ran = cli(
        "collect", prompts(1), "--teacher", "openai:m", "--base-url", server.url.replace("http", "https"), "--out", out
    )
    assert ran.code == 1 and "no secure connection" in ran.err


def test_concurrency_is_kept_and_used(cli, prompts, out):
    with FaultyServer(delay=0.03) as server:
        words = ["--teacher", "openai:m", "--base-url", server.url, "--out", out, "--concurrency", 7]
        assert cli("collect", prompts(40), *words).code == 0
        assert server.most == 7
