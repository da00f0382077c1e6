"""One prompt becoming one transcript, turn by turn; and the id that stands for it."""

from __future__ import annotations

import dataclasses

import pytest

from distill.collection.conversation import Conversation, add_usage
from distill.collection.row_id import all_params, row_id
from distill.errors import TeacherError
from distill.testing import FaultyServer, Reply, completion
from distill.types import Answer, Message, Params, Prompt


def user(*texts):
    return tuple(Message("user", text) for text in texts)


def answer(text, finish_reason="stop", usage=None, **message):
    return Answer(Message("assistant", text, **message), finish_reason, usage or {"n": 1}, "served")


def test_turns_are_asked_one_after_the_other():
    talk = Conversation("id", Prompt(user("a"), user("b", "c")), 2, Params(seed=5, max_tokens=9))
    said = []
    while not talk.done:
        request = talk.request()
        said.append([message.content for message in request.messages])
        assert request.params == Params(seed=7, max_tokens=9)
        assert request.metadata == {"sample": 2, "turn": len(said) - 1}
        talk.take(answer(f"to {said[-1][-1]}"))
    assert said == [["a"], ["a", "to a", "b"], ["a", "to a", "b", "to b", "c"]]
    assert [message.content for message in talk.messages] == ["a", "to a", "b", "to b", "c", "to c"]
    assert talk.usage == {"n": 3} and talk.turns_left == 0 and talk.model == "served"


def test_a_cut_turn_and_a_tool_call_end_the_conversation():
    for given in (answer("cut", "length"), answer(None, "tool_calls", tool_calls=({"id": "1"},))):
        talk = Conversation("id", Prompt(user("a"), user("b", "c")), 0, Params())
        talk.take(answer("fine"))
        talk.take(given)
        assert talk.done and talk.turns_left == 1 and talk.cut == (given.finish_reason == "length")


@pytest.mark.parametrize(
    "given", [answer(""), answer(None), answer(" \n"), answer("x", "content_filter"), answer("", refusal="no")]
)
def test_what_is_no_answer_is_refused(given):
    talk = Conversation("id", Prompt(user("a"), user("b")), 0, Params())
    with pytest.raises(TeacherError):
        talk.take(given)
    assert talk.answers == [given.message]


def test_usage_adds_up():
    one = {"in": 1, "details": {"cached": 2}, "tier": "x", "none": None}
    total = add_usage(add_usage({}, one), {"in": 4, "details": {"cached": 1, "new": 1}, "tier": "y", "none": None})
    assert total == {"in": 5, "details": {"cached": 3, "new": 1}, "tier": "y", "none": None}


def test_the_id_depends_on_all_that_the_answer_depends_on_and_on_nothing_else():
    prompt = Prompt(user("a"), user("b"), tools=({"name": "f"},), id="1", metadata={"x": 1})
    base = ("openai:m", {"seed": 1}, prompt, 0)
    same = row_id(*base)
    assert len(same) == 32 and set(same) <= set("0123456789abcdef")
    others = [
        ("openai:n", *base[1:]),
        (base[0], {"seed": 2}, prompt, 0),
        (base[0], {}, prompt, 0),
        (*base[:3], 1),
        (*base[:2], dataclasses.replace(prompt, messages=user("A")), 0),
        (*base[:2], dataclasses.replace(prompt, followups=()), 0),
        (*base[:2], dataclasses.replace(prompt, tools=()), 0),
        (*base[:2], dataclasses.replace(prompt, messages=(Message("system", "s"), *user("a"))), 0),
    ]
    assert len({same, *(row_id(*other) for other in others)}) == len(others) + 1
    assert row_id(*base[:2], dataclasses.replace(prompt, id="2", metadata={}, source=None), 0) == same
    assert row_id("t", {"b": 1, "a": 2}, prompt, 0) == row_id("t", {"a": 2, "b": 1}, prompt, 0)


def test_the_id_stays_what_it_is():
    """A changed hash would buy everybody's answers again."""
    assert row_id("openai:m", {}, Prompt(user("hello é")), 0) == "b32044e9becf5a588507c6ee8a72b9a6"


def test_params_are_the_common_ones_and_marked_options():
    @dataclasses.dataclass
    class Options:
        body: dict = dataclasses.field(default_factory=dict, metadata={"params": True})
        url: str = ""

    assert all_params(Params(), Options(url="x")) == {}
    assert all_params(Params(temperature=0), Options(body={"a": 1})) == {"temperature": 0.0, "body": {"a": 1}}
    assert all_params(Params(seed=0), {"any": 1}) == {"seed": 0}


def test_multi_turn_from_a_file(cli, prompts, out, read, failures):
    rows = [{"turns": ["a", "b", "c"], "system": "s"}, {"turns": ["d", "stop", "e"]}, {"turns": ["f", "fail", "g"]}]

    def script(asked):
        if asked.text == "stop":
            return Reply(completion("cut", "length"))
        return Reply({}, 400) if asked.text == "fail" else None

    with FaultyServer(script) as server:
        ran = cli("collect", prompts(rows), "--teacher", "openai:m", "--base-url", server.url, "--out", out, "--json")
    assert (ran.code, ran.summary["rows"], ran.summary["failed"], ran.summary["cut"]) == (1, 2, 1, 1)
    assert ran.summary["requests"] == 7 and sorted(server.texts()) == ["a", "b", "c", "d", "f", "fail", "stop"]
    whole, cut = sorted(read(out), key=lambda row: -len(row["messages"]))
    assert [message["content"] for message in whole["messages"]] == [
        "s",
        "a",
        "echo: a",
        "b",
        "echo: b",
        "c",
        "echo: c",
    ]
    assert [message["content"] for message in cut["messages"]] == ["d", "echo: d", "stop", "cut"]
    assert cut["metadata"]["turns_left"] == 1 and "turns_left" not in whole["metadata"]
    assert whole["metadata"]["usage"]["completion_tokens"] == 6
    [row] = failures()
    assert [answer["content"] for answer in row["answers"]] == ["echo: f"]
