"""What a server may do, what becomes of the row, and what becomes of the run."""

from __future__ import annotations

import pytest

from distill.builtin.teachers.statuses import RULES, rule_of, status_in, table
from distill.testing import Reply, completion

HTML = {"Content-Type": "text/html"}
GOOGLE = [{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED", "details": []}}]
AZURE = {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content policy"}}
STREAM = b'data: {"choices": [{"delta": {"content": "fine"}}]}\n\n'
HALF = {"message": {"content": "half"}}
LONG = {"error": {"message": "This model's maximum context length is 4096 tokens"}}


F = {"name": "f", "arguments": "{}"}


def call(arguments):
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}


def error(code=None, message="no", **more):
    return {"error": {"message": message, "code": code, **more}}


WRITTEN, APART, WAITED = "written", "set apart", "written when the server is well again"
ON, AT_ONCE, SOON, TENS = "goes on", "stops at once", "stops after some rows", "stops after 20 rows"

TABLE = [
    # kind, what the server sends, the row after good answers, the run where every row meets it from the start
    ("200", Reply(completion("fine")), WRITTEN, ON),
    ("201", Reply(completion("fine"), 201), WRITTEN, ON),
    ("a completion as an event stream", Reply(STREAM + b"data: [DONE]\n\n"), WRITTEN, ON),
    ("a cut answer", Reply(completion("half", "length")), WRITTEN, ON),
    ("a cut answer, Google's word", Reply(completion("half", "MAX_TOKENS")), WRITTEN, ON),
    ("no finish reason", Reply(completion("fine", None)), WRITTEN, ON),
    ("an unknown finish reason", Reply(completion("half", "abort")), APART, TENS),
    ("an error beside half an answer", Reply({"choices": [HALF | {"error": {"code": 400}}]}), APART, TENS),
    ("a finish reason that is no text", Reply(completion("half", {"type": "stop"})), APART, TENS),
    ("a finish reason of calls, and no call", Reply(completion("I look.", "tool_calls")), APART, TENS),
    ("half a tool call", Reply(completion(None, "tool_calls", tool_calls=[call('{"q": "do')])), APART, TENS),
    ("a tool call", Reply(completion(None, "tool_calls", tool_calls=[call("")])), WRITTEN, ON),
    ("a function call, OpenAI's old way", Reply(completion(None, "function_call", function_call=F)), WRITTEN, ON),
    ("reasoning without an answer", Reply(completion("<think>Hm.</think>\n")), APART, TENS),
    ("reasoning without an end", Reply(completion("<think>Hm.")), APART, TENS),
    ("an image beside the text", Reply(completion([{"type": "image_url"}, {"text": "see"}])), APART, TENS),
    ("a content filter", Reply(completion("half", "SAFETY")), APART, TENS),
    ("a refusal", Reply(completion(None, refusal="I will not")), APART, TENS),
    ("an empty answer", Reply(completion("")), APART, TENS),
    ("400", Reply(error("x"), 400), APART, TENS),
    ("400 of a content filter", Reply(AZURE, 400), APART, TENS),
    ("400 of the context's length", Reply(LONG, 400), APART, TENS),
    ("413", Reply(error(), 413), APART, TENS),
    ("422", Reply({"detail": [{"loc": ["body", "seed"], "msg": "no"}]}, 422), APART, TENS),
    ("451", Reply(error(), 451), APART, TENS),
    ("501", Reply(error(), 501), APART, TENS),
    ("302", Reply("", 302, {"Location": "https://x.example/"}), APART, AT_ONCE),
    ("401", Reply(error(), 401), APART, AT_ONCE),
    ("402", Reply(error(), 402), APART, AT_ONCE),
    ("403", Reply(error(), 403), APART, AT_ONCE),
    ("403 of moderation", Reply(error(403, "Your input was flagged"), 403), APART, TENS),
    ("404", Reply(error(), 404), APART, AT_ONCE),
    ("a used-up quota", Reply(error("insufficient_quota"), 429), APART, AT_ONCE),
    ("an error object with 401 in a 200", Reply(error(401)), APART, AT_ONCE),
    ("a web page", Reply("<html></html>", 200, HTML), APART, AT_ONCE),
    ("408", Reply("", 408), APART, SOON),
    ("424", Reply({"error": "Request failed during generation"}, 424), APART, SOON),
    ("500", Reply(error(), 500), APART, SOON),
    ("504", Reply("<html></html>", 504, HTML), APART, SOON),
    ("a broken event stream", Reply(STREAM), APART, SOON),
    ("nothing at all", Reply(b""), APART, SOON),
    ("204", Reply(b"", 204), APART, SOON),
    ("an error object in a 200", Reply(error("server_error")), APART, SOON),
    ("an error that is no part of anything", Reply({"object": "error", "message": "no", "code": 400}), APART, TENS),
    ("MiniMax's way to say so", Reply({"base_resp": {"status_code": 1000, "status_msg": "x"}}), APART, SOON),
    ("502", Reply("", 502), APART, SOON),
    ("503", Reply("", 503), APART, SOON),
    ("524", Reply("", 524), APART, SOON),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "reply", "row", "run"), TABLE, ids=[kind for kind, *_ in TABLE])
def test_one_row_meets_it_after_good_answers(ask, failures, kind, reply, row, run):
    """The row has its end, and the run goes on to its end."""
    script = lambda asked: reply if asked.text == "prompt 9" else None  # noqa: E731
    ran, _ = ask(script, "--concurrency", 2, "--retries", 1, count=30)
    assert ran.summary["stopped"] is None, ran.err
    assert (ran.code, ran.summary["rows"], len(failures())) == ((0, 30, 0) if row == WRITTEN else (1, 29, 1))


@pytest.mark.parametrize(("kind", "reply", "row", "run"), TABLE, ids=[kind for kind, *_ in TABLE])
def test_every_row_meets_it_from_the_start(ask, kind, reply, row, run):
    ran, server = ask(lambda asked: reply, "--concurrency", 2, "--retries", 1, "--patience", 0, count=70)
    requests = len(server.asked)
    if run == ON:
        assert (ran.code, ran.summary["rows"]) == (0, 70)
        return
    assert ran.code == 1 and ran.err.count("Error: teacher openai:m: ") == 1
    least, most = {AT_ONCE: (1, 2), SOON: (10, 40), TENS: (20, 22)}[run]
    assert least <= requests <= most, requests


SLOW = {
    "429": Reply(error(), 429),
    "498": Reply(error(), 498),
    "529": Reply(error("overloaded_error"), 529),
    "429 in a 200": Reply(error("rate_limit_exceeded")),
    "Google's list of errors": Reply(GOOGLE, 429),
    "Google's list of errors in a 200": Reply(GOOGLE),
    "MiniMax's": Reply({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_limit_is_waited_for(ask, kind):
    refused = set()

    def script(asked):
        if int(asked.text.split()[1]) % 4 == 0 and asked.text not in refused:
            refused.add(asked.text)
            return SLOW[kind]
        return None

    ran, _ = ask(script, "--retries", 1, "--concurrency", 4, count=20)
    assert ran.code == 0, ran.err
    assert (ran.summary["rows"], ran.summary["requests"]) == (20, 25)


def test_many_rows_in_a_row_after_good_answers_stop_the_run(ask, failures, out, read):
    """The key was revoked, or a parameter is refused, in the middle: the run says so, and stops."""

    def script(reply):
        return lambda asked: None if int(asked.text.split()[1]) < 10 else reply

    for reply, rows in ((Reply(error(), 401), 10), (Reply(error("x", "no such parameter"), 400), 50)):
        ran, server = ask(script(reply), "--concurrency", 1, count=300)
        assert ran.code == 1 and f"{rows} rows in a row met the same refusal: HTTP {reply.status}" in ran.err
        assert len(server.asked) == 10 + rows
        assert "10 rows saved" in ran.err
        out.unlink()


def test_overlong_prompts_never_stop_a_run_that_has_answers(ask, failures):
    def script(asked):
        return None if int(asked.text.split()[1]) % 100 == 0 else Reply(LONG, 400)

    ran, _ = ask(script, "--concurrency", 4, count=200)
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["stopped"]) == (1, 2, 198, None)


def test_a_rerun_does_not_stop_at_the_row_that_is_refused(ask, out, prompts, failures):
    """Earlier answers count as evidence, too; a wrong key stops a rerun all the same."""
    refused = lambda asked: Reply(error(), 403) if asked.text == "prompt 3" else None  # noqa: E731
    for _ in range(2):
        ran, _ = ask(refused, count=10)
        assert (ran.code, len(failures()), ran.summary["stopped"]) == (1, 1, None)
    ran, server = ask(lambda asked: Reply(error(), 401), "--concurrency", 1, count=100)
    assert ran.code == 1 and "3 rows in a row met the same refusal: HTTP 401" in ran.err
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens_field="),
        ("'temperature' does not support 0.2 with this model", "leave --temperature out"),
        ("Unrecognized request argument supplied: seed", "leave --seed out"),
        ("This model only supports `stream` = true", "-T stream=true"),
        ("logprobs is not supported", "leave --logprobs out"),
    ],
)
def test_a_refused_parameter_names_the_option(ask, message, hint):
    ran, _ = ask(lambda asked: Reply({"error": {"message": message}}, 400), count=40)
    assert ran.code == 1 and hint in ran.err


def test_every_status_has_one_rule_and_the_docs_print_it():
    assert [rule_of(status).name for status in (200, 301, 429, 503)] == [
        "200–299",
        "300–399",
        "429, 498, 529",
        "502, 503, 520–527, 530",
    ]
    assert rule_of(600) is RULES[-1] and rule_of(418).name.startswith("other 4xx")
    assert status_in({"overloaded_error"}) == 529 and status_in({"strange"}) == 500 and status_in({"403", "x"}) == 403
    assert all(rule.name in table() for rule in RULES)
