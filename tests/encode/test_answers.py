"""What a model writes is read as the data have it: the thought apart from the answer, in every family's format."""

from __future__ import annotations

import pytest
from family_table import FAMILIES, MANAGER

from distill import Message, make_formatter
from distill.encode.answers import AnswerShape, ReadAnswer, read_answer, read_so_far, shape_of
from distill.encode.tokenizer import prepare_tokenizer

THINKING = {"Qwen 3", "Qwen 3.5", "Gemma 4", "DeepSeek R1 distills, QwQ", "gpt-oss", "GLM", "Nemotron"}


def encoder_of(name: str, options: dict | None = None):
    formatter = make_formatter("chat-template", options or {}, MANAGER)
    return prepare_tokenizer(FAMILIES[name].tokenizer(), formatter, "chat-template")


def written(encoder, answer: Message) -> list[int]:
    """What a student that has learnt this answer writes, without its end-of-turn marker."""
    asked = Message("user", "How cold is it?")
    encoded, start = encoder.encode([asked, answer]), len(encoder.prompt([asked]))
    ends = [n for n in range(start, len(encoded.input_ids)) if encoded.end_of_turn[n]]
    stop = next((n for n in ends if encoded.input_ids[n] in encoder.stops), len(encoded.input_ids))
    return encoded.input_ids[start:stop]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thought_is_told_from_the_answer(name):
    encoder = encoder_of(name)
    thinks = shape_of(encoder).opening is not None
    assert thinks == (name in THINKING)
    said = read_answer(encoder, written(encoder, Message("assistant", "Rather fresh.")))
    assert said == ReadAnswer("Rather fresh.")
    thought = written(encoder, Message("assistant", "Rather fresh.", "Seven degrees."))
    assert read_answer(encoder, thought) == ReadAnswer("Rather fresh.", "Seven degrees." if thinks else None)


@pytest.mark.parametrize("name", ["Qwen 3", "Gemma 4", "DeepSeek R1 distills, QwQ", "gpt-oss", "GLM"])
def test_it_is_shown_while_it_is_written(name):
    """Piece by piece: each continues the one before, and nothing of the format appears."""
    encoder, pieces = encoder_of(name), [""]
    ids = written(encoder, Message("assistant", "Rather fresh.", "Seven degrees."))
    for end in range(1, len(ids) + 1):
        piece = read_so_far(encoder, ids[:end])
        assert piece.startswith(pieces[-1].rstrip()), (pieces[-1], piece)
        pieces.append(piece)
    assert pieces[-1] == "Seven degrees.\n\nRather fresh."


def test_a_thought_within_the_answer_by_an_option():
    encoder = encoder_of("Qwen 2.5", {"reasoning": "inline"})
    thought = written(encoder, Message("assistant", "Rather fresh.", "Seven degrees."))
    assert read_answer(encoder, thought) == ReadAnswer("Rather fresh.", "Seven degrees.")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<think>\nSeven.\n</think>\n\nFresh.", ReadAnswer("Fresh.", "Seven.")),
        ("<think>Seven.</think>Fresh.", ReadAnswer("Fresh.", "Seven.")),  # spaced otherwise
        ("<think>\n\n</think>\n\nFresh.", ReadAnswer("Fresh.")),
        ("<think>\nSeven and", None),  # cut, or never ended: it stays in the answer, as in the data
        ("Fresh.", None),
    ],
)
def test_what_a_student_writes_otherwise(text, read):
    shape = AnswerShape("<think>\n", "\n</think>\n\n", "")
    assert shape.read(text) == read
