"""The text that FastChat's own code gives for `vicuna_v1.1`, and the contract of formatters."""

from __future__ import annotations

import distill_vicuna
import pytest
from distill_vicuna import SYSTEM, VICUNA

import distill
from distill import DataError, Message, Segment
from distill.testing import check_formatter, load_plugin

CHAT = [
    Message("user", "Hello!"),
    Message("assistant", "Hi."),
    Message("user", "Bye!"),
    Message("assistant", "See you."),
]


class Tokenizer:
    eos_token = "</s>"


def text(messages, **kwargs):
    return "".join(segment.text for segment in VICUNA.segments(messages, Tokenizer(), **kwargs))


def fastchat(messages, prompt):
    """As FastChat's Conversation.get_prompt does for SeparatorStyle.ADD_COLON_TWO with " " and "</s>"."""
    roles, separators = {"user": "USER", "assistant": "ASSISTANT"}, {"user": " ", "assistant": "</s>"}
    said = "".join(f"{roles[one.role]}: {one.content}{separators[one.role]}" for one in messages)
    return f"{SYSTEM} {said}" + ("ASSISTANT:" if prompt else "")


def test_it_keeps_the_contract_of_formatters():
    check_formatter(VICUNA)


def test_it_registers_its_name():
    spec = load_plugin(distill_vicuna).formatters.get("vicuna")
    assert isinstance(spec.build(spec.options()), distill.Formatter)


@pytest.mark.parametrize("length", range(1, len(CHAT) + 1))
def test_same_text_as_fastchat(length):
    for prompt in (False, True):
        assert text(CHAT[:length], add_generation_prompt=prompt) == fastchat(CHAT[:length], prompt)


def test_the_space_before_an_answer_is_the_assistants():
    segments = VICUNA.segments(CHAT[:2], Tokenizer())
    assert segments[-3:] == [
        Segment(" ", role="assistant", turn=1),
        Segment("Hi.", content=True, role="assistant", turn=1),
        Segment("</s>", role="assistant", turn=1, end_of_turn=True),
    ]


def test_a_system_message_takes_the_place_of_vicunas():
    assert text([Message("system", "Be brief."), *CHAT[:1]]) == "Be brief. USER: Hello! "


@pytest.mark.parametrize(
    ("messages", "tools", "says"),
    [
        ([*CHAT, Message("tool", "42")], None, "message 4: vicuna has no tools"),
        ([Message("assistant", None, refusal="No.")], None, "message 0"),
        ([*CHAT, Message("system", "Be brief.")], None, "only at the start"),
        (CHAT, [{"type": "function"}], "no tools"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(messages, tools, says):
    with pytest.raises(DataError, match=says):
        text(messages, tools=tools)
