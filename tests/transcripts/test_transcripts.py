"""Transcripts: a round trip through their JSON row keeps everything, and malformed rows are named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import DataError
from distill.files.jsonl import dumps
from distill.transcripts.reader import read_transcripts
from distill.transcripts.rows import parse_transcript, transcript_to_dict
from distill.types import Message, Source, Transcript

HERE = Source("f.jsonl", 3)

text = st.text(st.characters(exclude_categories=("Cs",)))
maybe = st.none() | text
objects = st.dictionaries(text, st.none() | st.integers() | text | st.booleans(), max_size=3)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=text,
    reasoning_content=maybe,
    tool_calls=st.lists(objects, max_size=2).map(tuple),
    tool_call_id=maybe,
    name=maybe,
    refusal=maybe,
    train=st.booleans(),
)
transcripts = st.builds(
    Transcript,
    id=text.filter(bool),
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    tools=st.lists(objects, max_size=2).map(tuple),
    metadata=objects,
)


@settings(max_examples=150, deadline=None)
@given(transcripts)
def test_a_transcript_comes_back_as_it_was(transcript):
    line = dumps(transcript_to_dict(transcript)).encode()
    assert b"\n" not in line
    back = parse_transcript(json.loads(line), HERE)
    assert (back.id, back.messages, back.tools, back.metadata) == (
        transcript.id,
        transcript.messages,
        transcript.tools,
        transcript.metadata,
    )
    assert back.source == HERE


def test_line_separators_do_not_split_rows(tmp_path):
    path = tmp_path / "t.jsonl"
    content = "a\u2028b\u2029c\x85d\x0b\x0c\x1ce\r\nf"
    row = {"id": "1", "messages": [{"role": "user", "content": content}]}
    path.write_text(f"{dumps(row)}\n{dumps({**row, 'id': '2'})}\n", encoding="utf-8", newline="")
    read = list(read_transcripts(path))
    assert [(transcript.id, transcript.messages[0].content) for transcript in read] == [("1", content), ("2", content)]
    assert [str(transcript.source) for transcript in read] == [f"{path}:1", f"{path}:2"]


def test_a_row_without_id_is_known_by_its_place():
    assert parse_transcript({"messages": [{"role": "user", "content": "a"}]}, HERE).id == "f.jsonl:3"


def test_parts_of_text_are_joined_and_tool_calls_need_no_content():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [{"id": "1"}]}]
    transcript = parse_transcript({"messages": rows}, HERE)
    assert transcript.messages[0].content == "ab" and transcript.messages[1].content is None


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"weight": 0.0}])
def test_messages_that_do_not_count(mark):
    message = {"role": "assistant", "content": "a", **mark}
    assert not parse_transcript({"messages": [message]}, HERE).messages[0].train


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "no list of `messages`"),
        ({"messages": "a"}, "no list"),
        ({"messages": []}, "no list"),
        ({"messages": [1]}, "message 0 is not an object"),
        ({"messages": [{"role": "boss", "content": "a"}]}, "unknown role 'boss'"),
        ({"messages": [{"role": "user"}]}, "no `content`"),
        ({"messages": [{"role": "user", "content": 5}]}, "int"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "surrogate"),
        ({"id": "\ud83d", "messages": [{"role": "user", "content": "a"}]}, "`id`: lone surrogate"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": [{"a": "\ud83d"}]}, "`tools`: lone surrogate"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"a": "\ud83d"}]}]}, "`tool_calls`: lone surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": ["f"]}]}, "tool_calls"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}, "`weight` is 0.5"),
        ({"messages": [{"role": "assistant", "content": "a", "train": "false"}]}, "`train` is 'false'"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": 1}, "tools"),
        ({"messages": [{"role": "user", "content": "a"}], "metadata": []}, None),
        ({"messages": [{"role": "user", "content": "a"}], "metadata": [1]}, "metadata"),
    ],
)
def test_malformed_rows_are_named(row, words):
    if words is None:
        assert parse_transcript(row, HERE).metadata == {}
        return
    with pytest.raises(DataError) as caught:
        parse_transcript(row, HERE)
    told = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith("f.jsonl:3") and words in told
