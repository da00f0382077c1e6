"""Log probabilities from OpenAI-compatible servers: as OpenAI sends them, as vLLM does, or not at all."""

from __future__ import annotations

import math

import pytest

from distill.models.load import load_tokenizer
from distill.soft_labels.rows import parse_logprobs
from distill.testing import Reply, completion


def told(text: str, logprob: float | None, *top: tuple[str, float]) -> dict:
    """One token, as OpenAI tells it."""
    likeliest = [{"token": other, "logprob": value, "bytes": list(other.encode())} for other, value in top]
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": likeliest}


def reply(content: list | None, text: str = "Hi!", **choice) -> Reply:
    body = completion(text)
    body["choices"][0] |= {"logprobs": None if content is None else {"content": content}, **choice}
    return Reply(body)


HI = [told("Hi", -0.12345678, ("Hi", -0.12345678), ("Yo", -2)), told("!", -0.5, ("!", -0.5), (".", -1))]


def test_they_are_asked_for_and_kept(ask, out, read):
    ran, server = ask([reply(HI)], "--logprobs", 2)
    assert ran.code == 0, ran.err
    assert server.asked[0].body["logprobs"] is True and server.asked[0].body["top_logprobs"] == 2
    [row] = read(out)
    assert row["metadata"]["params"] == {"logprobs": 2}
    kept = parse_logprobs(row["metadata"]["logprobs"][0])
    assert kept.tokens == (b"Hi", b"!") and row["metadata"]["logprobs"][0]["logprobs"] == [-0.1235, -0.5]
    assert kept.vocabulary == (b"Hi", b"Yo", b"!", b".") and kept.top_ids.tolist() == [[0, 1], [2, 3]] and not kept.end
    assert kept.origin.temperature is None and not kept.origin.sampled_plainly  # a server may have its own defaults
    ran, server = ask((), "--logprobs", 3)
    assert ran.code == 2 and "logprobs=2, not logprobs=3" in ran.err


def test_how_an_answer_was_sampled_is_kept(ask, out, read):
    body = ["-T", 'body={"top_p": 1}']
    ran, _ = ask([reply(HI)], "--logprobs", 2, "--temperature", 1, *body)
    assert ran.code == 0, ran.err
    assert parse_logprobs(read(out)[0]["metadata"]["logprobs"][0]).origin.sampled_plainly
    out.unlink()
    ask([reply(HI)], "--logprobs", 2, "--temperature", 1, "-T", 'body={"top_p": 1, "presence_penalty": 0.5}')
    assert not parse_logprobs(read(out)[0]["metadata"]["logprobs"][0]).origin.sampled_plainly


def test_a_token_may_be_a_piece_of_a_character_and_a_number_may_be_none(ask, out, read):
    pieces = [
        {"token": "\\xf0\\x9f", "logprob": -9999.0, "bytes": [240, 159], "top_logprobs": [told("Hi", -1)]},
        {"token": "!", "logprob": None, "bytes": None},
    ]
    ran, _ = ask([reply(pieces)], "--logprobs", 2)
    assert ran.code == 0, ran.err
    kept = parse_logprobs(read(out)[0]["metadata"]["logprobs"][0])
    assert kept.tokens == (b"\xf0\x9f", b"!") and all(math.isnan(value) for value in kept.logprobs)


def test_an_end_of_turn_marker_is_none_of_the_answers_tokens(ask, out, read):
    ran, _ = ask([reply([*HI, told("<|im_end|>", -0.1, ("<|im_end|>", -0.1))])], "--logprobs", 2)
    assert ran.code == 0 and parse_logprobs(read(out)[0]["metadata"]["logprobs"][0]).end == 1


def test_a_server_without_them_is_found_with_the_first_request(ask, out):
    """In one line, before anything else is spent."""
    ran, server = ask(lambda asked: reply(None), "--logprobs", 2, "--concurrency", 8, count=8)
    assert ran.code == 1 and len(server.asked) == 1
    assert "gives no log probabilities for 'm'" in ran.err and "leave --logprobs out" in ran.err


def test_a_server_without_likeliest_tokens_is_found_too(ask, out):
    ran, server = ask(lambda asked: reply([told("Hi", -1), told("!", -1)]), "--logprobs", 2, count=4)
    assert ran.code == 1 and len(server.asked) == 1 and "--logprobs 0" in ran.err
    ran, server = ask(lambda asked: reply([told("Hi", -1), told("!", -1)]), "--logprobs", 0, count=4)
    assert ran.code == 0 and len(server.asked) == 4


@pytest.mark.parametrize("odd", [None, {}, {"content": None}, {"content": 7}, {"content": [1]}, {"content": []}, [1]])
def test_later_on_odd_ones_cost_no_answer(ask, out, read, odd):
    def script(asked):
        return reply(HI) if asked.text == "prompt 0" else reply(None, logprobs=odd)

    ran, _ = ask(script, "--logprobs", 2, "--concurrency", 1, count=2)
    assert ran.code == 0 and len(read(out)) == 2, ran.err


def test_token_ids_are_asked_for_until_a_server_refuses_them(ask, out, read):
    refused = Reply({"error": {"message": "Extra inputs are not permitted: return_token_ids"}}, 400)
    ran, server = ask(
        lambda asked: refused if "return_token_ids" in asked.body else reply(HI), "--logprobs", 2, count=3
    )
    assert ran.code == 0, ran.err
    assert ["return_token_ids" in one.body for one in server.asked] == [True, False, False, False]


def test_a_served_tokenizer_that_is_named_makes_ids_exact(ask, out, read, bloom):
    """vLLM writes the pieces of a character as U+FFFD, and with ids their placeholders as bytes: ids are exact."""
    tokenizer = load_tokenizer(str(bloom))
    text = "Hi 👩!"
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    def placeholder(id: int) -> dict:
        return {"token": f"token_id:{id}", "logprob": -0.5, "bytes": list(f"token_id:{id}".encode())}

    content = [
        {**placeholder(id), "top_logprobs": [placeholder(id), {**placeholder(7), "logprob": -2.0}]} for id in ids
    ]
    ran, server = ask([reply(content, text)], "--logprobs", 2, "-T", f"tokenizer={bloom}")
    assert ran.code == 0, ran.err
    assert server.asked[0].body["return_tokens_as_token_ids"] is True
    kept = parse_logprobs(read(out)[0]["metadata"]["logprobs"][0])
    assert kept.ids.tolist() == ids and b"".join(kept.tokens[:-1]).decode() == text and kept.end == 1
    assert kept.origin.end_ids == (tokenizer.eos_token_id,) and kept.origin.tokenizer
    out.unlink()
    ran, server = ask(lambda asked: reply(content, text), "--logprobs", 2, count=3)
    assert ran.code == 1 and "-T tokenizer=PATH_OR_ID" in ran.err and len(server.asked) == 1
