"""The format's text, and the contract of formatters."""

from __future__ import annotations

import distill_alpaca
import pytest
from distill_alpaca import PREAMBLE, AlpacaOptions, alpaca

import distill
from distill import DataError, Message
from distill.testing import check_formatter, load_plugin

CHAT = [
    Message("user", "Name a pet."),
    Message("assistant", "Dog."),
    Message("user", "More."),
    Message("assistant", "Cat."),
]


class Tokenizer:
    eos_token = "</s>"


def text(messages, preamble=PREAMBLE, **kwargs):
    made = alpaca(AlpacaOptions(preamble))
    return "".join(segment.text for segment in made.segments(messages, Tokenizer(), **kwargs))


def test_it_keeps_the_contract_of_formatters():
    check_formatter(alpaca(AlpacaOptions()))
    check_formatter(alpaca(AlpacaOptions('A "preamble" with\nquotes, </s> and {{ braces }}.')))


def test_it_registers_its_name():
    spec = load_plugin(distill_alpaca).formatters.get("alpaca")
    assert isinstance(spec.build(spec.options()), distill.Formatter)


def test_a_known_text():
    assert text(CHAT) == (
        f"{PREAMBLE}\n\n### Instruction:\nName a pet.\n\n### Response:\nDog.</s>\n\n"
        "### Instruction:\nMore.\n\n### Response:\nCat.</s>\n\n"
    )
    assert text(CHAT[:1], add_generation_prompt=True).endswith("Name a pet.\n\n### Response:\n")


def test_a_system_message_or_an_option_stands_in_for_the_preamble():
    assert text([Message("system", "Be brief."), *CHAT[:1]]) == "Be brief.\n\n### Instruction:\nName a pet.\n\n"
    assert text(CHAT[:1], "Task:") == "Task:\n\n### Instruction:\nName a pet.\n\n"


@pytest.mark.parametrize(
    ("messages", "tools", "says"),
    [
        ([*CHAT, Message("tool", "42")], None, "message 4: alpaca has no tools"),
        ([Message("assistant", None, refusal="No.")], None, "message 0"),
        ([*CHAT, Message("system", "Be brief.")], None, "only at the start"),
        (CHAT, [{"type": "function"}], "no tools"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(messages, tools, says):
    with pytest.raises(DataError, match=says):
        text(messages, tools=tools)
