"""Files of conversations as others write them: each is read as what it means, or refused with what to do."""

from __future__ import annotations

import json

import pytest

from distill import make_plugin_manager
from distill.errors import DataError
from distill.transcripts.convert import convert
from distill.transcripts.reader import make_reader, read_transcripts
from distill.types import Source

HERE = Source("f.jsonl", 3)
MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


def parse_row(row, named=None):
    """A row's transcript, and the name of its format."""
    read = make_reader(named, MANAGER).read(row, HERE)
    return read.transcript, read.dialect.name


def to_canonical(row):
    """The report of a conversion."""
    return convert([(HERE, row)], MANAGER.dialects.get("canonical"), make_reader(None, MANAGER), lambda line: None)


def said(row, named=None):
    """A row's messages as (role, content) pairs."""
    transcript = parse_row(row, named)[0]
    return [(message.role, message.content) for message in transcript.messages]


ASKED = [("user", "q"), ("assistant", "a")]
TAUGHT = [("system", "s"), *ASKED]
CALL = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("row", "name", "messages"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "canonical", ASKED),
        (
            {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"}]},
            "canonical",
            TAUGHT[:2],
        ),
        ({"system": "s", "messages": [{"role": "user", "content": "q"}]}, "canonical", TAUGHT[:2]),
        (
            {"prompt": "other", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]},
            "canonical",
            ASKED[:1],
        ),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sharegpt", ASKED),
        ({"messages": [{"from": "user", "value": "q"}, {"from": "Assistant", "value": "a"}]}, "sharegpt", ASKED),
        ({"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]}, "sharegpt", ASKED),
        (
            {
                "system": "s",
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "Human", "content": "q"},
                    {"role": "model", "content": "a"},
                ],
            },
            "sharegpt",
            TAUGHT,
        ),
        ({"conversation": [{"role": "user", "content": "q"}, {"role": "bing", "content": "a"}]}, "sharegpt", ASKED),
        (
            {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "chatgpt", "value": "a"}]},
            "sharegpt",
            TAUGHT,
        ),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", ASKED),
        ({"instruction": "q", "input": "x", "output": "a"}, "alpaca", [("user", "q\nx"), ASKED[1]]),
        ({"instruction": "q", "context": "x", "response": "a"}, "alpaca", [("user", "q\nx"), ASKED[1]]),
        (
            {"instruction": "q", "output": "a", "system": "s", "history": [["h", "i"]]},
            "alpaca",
            [TAUGHT[0], ("user", "h"), ("assistant", "i"), *ASKED],
        ),
        ({"prompt": "q", "completion": "a"}, "prompt-completion", ASKED),
        ({"prompt": "q", "response": "a", "system": "s"}, "prompt-completion", TAUGHT),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            "prompt-completion",
            ASKED,
        ),
    ],
)
def test_rows_are_found_out_and_read(row, name, messages):
    assert parse_row(row)[1] == name
    assert said(row) == messages == said(row, name)
    assert not to_canonical(row).lost


def test_openais_rows_old_and_new():
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "4"},
            {"role": "assistant", "content": "a", "reasoning": "hm", "weight": 0},
        ],
        "functions": [{"name": "f", "parameters": {}}],
        "parallel_tool_calls": False,
    }
    transcript = parse_row(row)[0]
    call, result, answer = transcript.messages[1:]
    assert call.tool_calls == ({"type": "function", "function": {"name": "f", "arguments": "{}"}},)
    assert (result.role, result.name, result.content) == ("tool", "f", "4")
    assert answer.reasoning_content == "hm" and not answer.train
    assert transcript.tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    assert transcript.metadata == {"parallel_tool_calls": False}


def test_sharegpts_tools():
    turns = [
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "Let me see."},
        {"from": "function_call", "value": json.dumps([CALL, CALL])},
        {"from": "observation", "value": "4"},
        {"from": "gpt", "value": "a"},
    ]
    transcript = parse_row({"conversations": turns, "tools": json.dumps([{"name": "f"}])})[0]
    assert [message.role for message in transcript.messages] == ["user", "assistant", "tool", "assistant"]
    spoken = transcript.messages[1]
    assert spoken.content == "Let me see." and len(spoken.tool_calls) == 2
    assert json.loads(spoken.tool_calls[0]["function"]["arguments"]) == {"x": 1}
    assert transcript.tools == ({"type": "function", "function": {"name": "f"}},)


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_what_must_not_be_trained_is_not(mark):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", **mark}, {"from": "gpt", "value": "b"}]
    trained = [message.train for message in parse_row({"conversations": turns})[0].messages]
    assert trained == [True, False, True]


def test_answers_in_a_prompt_are_not_trained():
    prompt = [
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "q"},
    ]
    transcript = parse_row({"prompt": prompt, "completion": "a"})[0]
    assert [message.train for message in transcript.messages] == [True, False, True, True]


def test_other_columns_are_metadata():
    row = {"instruction": "q", "output": "a", "category": "qa", "empty": None, "metadata": {"n": 1}, "id": 7}
    transcript = parse_row(row)[0]
    assert transcript.id == "7" and transcript.metadata == {"category": "qa", "n": 1}
    assert parse_row({"prompt": "q", "completion": "a", "metadata": "x"})[0].metadata == {"metadata": "x"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q", "answer": "a"}, "no known data format: its keys are question, answer"),
        ({}, "its keys are none"),
        ({"prompt": "q"}, "looks like a prompt"),
        ({"turns": ["q"]}, "distill collect"),
        ({"text": "q"}, "plain text"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preferences"),
        ({"custom_id": "1", "response": {}}, "answers without their questions"),
        ({"prompt": "q", "completion": "a", "instruction": "q", "output": "a"}, "alpaca and prompt-completion"),
        ({"prompt": "q", "completion": "a", "label": False}, "`label` is false: a rating"),
        ({"instruction": "q", "output": "a", "kto_tag": True}, "preferences"),
        ({"conversations": [{"from": "human", "value": "q"}], "chosen": {}, "rejected": {}}, "preferences"),
        ({"conversations": []}, "no list of `conversations`"),
        ({"conversations": ["q"]}, "turn 0 is not an object"),
        ({"conversations": [{"from": "boss", "value": "q"}]}, "turn 0 is by the unknown speaker 'boss'"),
        ({"conversations": [{"value": "q"}]}, "unknown speaker None"),
        ({"conversations": [{"from": "human"}]}, "no `content`"),
        ({"conversations": [{"from": "function_call", "value": "f(x)"}]}, "turn 0 is a string, but not of JSON"),
        ({"conversations": [{"from": "function_call", "value": "1"}]}, "a call is not"),
        ({"conversations": [{"from": "human", "value": "q"}], "tools": "f"}, "`tools` is a string, but not of JSON"),
        ({"system": "s", "conversations": [{"from": "system", "value": "q"}]}, "`system` and a system message"),
        ({"system": 1, "conversations": [{"from": "human", "value": "q"}]}, "`system` is not a text"),
        ({"instruction": "q", "output": None}, "null in `output`"),
        ({"instruction": 1, "output": "a"}, "`instruction` is not a text"),
        ({"instruction": "q", "output": "a", "history": ["h"]}, "`history` is not a list of pairs"),
        ({"prompt": "q", "completion": None}, "null in `completion`"),
        ({"prompt": 1, "completion": "a"}, "`prompt` is neither"),
        ({"prompt": "q", "completion": []}, "`completion` is neither"),
        ({"messages": [{"role": "assistant", "content": "a", "train_detail": [1]}]}, "single characters"),
        ({"messages": "q"}, "no list of `messages`"),
    ],
)
def test_what_is_no_conversation_is_named(row, words):
    with pytest.raises(DataError) as caught:
        parse_row(row)
    assert caught.value.message.startswith("f.jsonl:3") and words in f"{caught.value.message} {caught.value.hint}"


def test_a_named_dialect_settles_a_row_that_could_be_two():
    row = {"prompt": "q", "completion": "a", "instruction": "i", "output": "o"}
    assert said(row, "prompt-completion") == ASKED
    assert said(row, "alpaca") == [("user", "i"), ("assistant", "o")]
    for name in ("canonical", "sharegpt"):
        with pytest.raises(DataError, match="no list of"):
            parse_row(row, name)


def test_a_file_may_hold_several_dialects(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"prompt": "q", "completion": "a"}\n\n{"instruction": "q", "output": "a"}\n')
    transcripts = list(read_transcripts(path))
    assert [str(transcript.source) for transcript in transcripts] == [f"{path}:1", f"{path}:3"]
    with pytest.raises(DataError, match=r"mixed.jsonl:3"):
        list(read_transcripts(path, "prompt-completion"))
    with pytest.raises(DataError, match="No such file"):
        list(read_transcripts(tmp_path / "none.jsonl"))
