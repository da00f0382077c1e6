"""Formats of text markers: the text they give, and the patterns they refuse."""

from __future__ import annotations

import pytest

import distill
from distill import Message, Segment, TextFormat
from distill.testing import check_formatter

CHAT = [Message("system", "Brief."), Message("user", "Dog?"), Message("assistant", "perro")]


class Tokenizer:
    eos_token = "<end>"
    bos_token = None


def test_it_keeps_the_contract_of_formatters():
    check_formatter(TextFormat(user='"U" {}\n', assistant="<a>{bos}{}", system="S: {}{eos}\n", end="{eos}\n\n"))
    check_formatter(TextFormat(user="{}\n", assistant="A: {}", end="<|stop|>", generation_prompt="A:"))


def test_segments_of_an_answer():
    made = TextFormat(user="U{bos}{}\n", assistant="A: {}", system="{}\n", end="{eos}\n", generation_prompt="A:")
    assert made.segments(CHAT, Tokenizer()) == [
        Segment("Brief.", True, "system", 0),
        Segment("\n"),
        Segment("U"),
        Segment("Dog?", True, "user", 1),
        Segment("\n"),
        Segment("A:"),
        Segment(" ", False, "assistant", 2),
        Segment("perro", True, "assistant", 2),
        Segment("<end>", False, "assistant", 2, end_of_turn=True),
        Segment("\n"),
    ]
    assert made.segments(CHAT[:2], Tokenizer(), add_generation_prompt=True)[-1] == Segment("A:")


@pytest.mark.parametrize(
    ("patterns", "complaint"),
    [
        ({"user": "no place", "assistant": "{}"}, "role user must contain {} once"),
        ({"user": "{}", "assistant": "{}", "system": "{}{}"}, "role system must contain {} once"),
        ({"user": "{}", "assistant": "{}</s>"}, "belongs in `end`"),
        ({"user": "{}", "assistant": "{}", "end": "\n"}, "needs an end-of-turn marker"),
        ({"user": "{}", "assistant": "{}", "default_system": "x"}, "needs a `system` pattern"),
        ({"user": "{}", "assistant": "A: {}", "generation_prompt": "B:"}, "does not start with the prompt"),
    ],
)
def test_patterns_that_are_no_format_are_refused(patterns, complaint):
    with pytest.raises(ValueError, match=complaint.replace("{}", r"\{\}")):
        TextFormat(**patterns)


def test_the_old_name_of_formatters_with_a_shape_warns():
    with pytest.warns(DeprecationWarning, match="use distill.Formatter"):
        assert distill.ShapedFormatter is distill.Formatter
