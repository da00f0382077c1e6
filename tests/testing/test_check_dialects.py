"""The conformance suite of data formats: it passes what is sound, and names what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill import DialectSpec, make_plugin_manager
from distill.testing import check_dialect

BUILT_IN = make_plugin_manager(environ={"DISTILL_PLUGINS": ""}).dialects
ROW = {"question": "q", "answer": "a"}


def read(row, where):
    talk = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return {"messages": talk}


def write(transcript):
    question, answer = transcript.messages
    return {"question": question.content, "answer": answer.content}


def matches(row):
    return "question" in row and "answer" in row


SOUND = DialectSpec("qa", "question, answer", matches, read, ("question", "answer"))


@pytest.mark.parametrize("name", [name for name in BUILT_IN.names() if name != "openai"])
def test_the_built_in_formats_pass(name):
    check_dialect(BUILT_IN.get(name))


def test_a_sound_format_passes():
    check_dialect(SOUND, [ROW])


@pytest.mark.parametrize(
    ("change", "rows", "complaint"),
    [
        ({"matches": lambda row: False}, [ROW], "matches() is false"),
        ({}, [{**ROW, "prompt": "q", "completion": "a"}], "prompt-completion match"),
        ({"read": lambda row, where: {"messages": []}}, [ROW], "no list of `messages`"),
        ({"read": lambda row, where: row.update(x=1) or read(row, where)}, [ROW], "read() has changed"),
        ({"read": lambda row, where: read({**row, "question": row["question"].strip()}, where)}, [ROW], "question = 7"),
        ({"write": lambda transcript: {**ROW, "answer": "other"}}, [ROW], "was written, and"),
    ],
)
def test_what_is_broken_is_named(change, rows, complaint):
    with pytest.raises(AssertionError) as caught:
        check_dialect(replace(SOUND, **change), rows)
    assert complaint in str(caught.value)
