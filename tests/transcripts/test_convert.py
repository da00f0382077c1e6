"""`distill convert`: what the report does not name came through exactly, and a file is whole or not there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import make_plugin_manager
from distill.cli.main import main
from distill.transcripts.convert import convert, losses
from distill.transcripts.reader import make_reader
from distill.transcripts.rows import transcript_to_dict
from distill.types import Message, Source, Transcript

HERE = Source("in.jsonl", 1)
MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
DIALECTS = [dialect.name for dialect in MANAGER.dialects if dialect.write]
OTHERS = [name for name in DIALECTS if name != "canonical"]

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
maybe = st.none() | text
objects = st.dictionaries(text, st.none() | st.integers() | text | st.booleans(), max_size=2)
arguments = objects | objects.map(json.dumps) | text
calls = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": text, "arguments": arguments})},
    optional={"id": text},
)
answers = st.builds(
    Message,
    role=st.just("assistant"),
    content=text,
    reasoning_content=st.none() | st.none() | text,
    tool_calls=st.just(()) | st.lists(calls, max_size=2).map(tuple),
    refusal=st.none() | st.none() | text,
    train=st.booleans() | st.just(True),
)
others = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "user", "user", "tool"]),
    content=text,
    tool_call_id=st.none() | st.none() | text,
    name=st.none() | st.none() | text,
)
refusals = st.builds(Message, role=st.just("assistant"), refusal=text)
pairs = st.tuples(
    text.map(lambda said: Message("user", said)), text.map(lambda said: Message("assistant", said or "."))
)
plain_chats = st.lists(pairs, min_size=1, max_size=3).map(
    lambda chat: tuple(message for pair in chat for message in pair)
)
marked_chats = st.tuples(plain_chats, st.lists(st.booleans(), min_size=6, max_size=6)).map(
    lambda drawn: tuple(replace(m, train=mark or m.role == "user") for m, mark in zip(*drawn, strict=False))
)
chats = st.lists(answers | others | refusals, min_size=1, max_size=5).map(tuple) | plain_chats | marked_chats
transcripts = st.builds(
    Transcript,
    id=text.filter(bool) | st.just(str(HERE)),
    messages=chats,
    tools=st.lists(objects | objects.map(lambda tool: {"type": "function", "function": tool}), max_size=2).map(tuple),
    metadata=st.just({}) | objects | st.just({"finish_reason": "length", "parallel_tool_calls": True}),
    source=st.just(HERE),
)


def through(transcript: Transcript, name: str):
    """A transcript to a dialect and back: the report, and the canonical rows that come of it."""
    lines = []
    canonical = make_reader("canonical", MANAGER)
    report = convert([(HERE, transcript_to_dict(transcript))], MANAGER.dialects.get(name), canonical, lines.append)
    rows, back = [(HERE, json.loads(line)) for line in lines], []
    convert(rows, MANAGER.dialects.get("canonical"), make_reader(name, MANAGER), back.append)
    return report, [canonical.read(json.loads(line), HERE).transcript for line in back]


def without(transcript: Transcript, lost: set[str]) -> dict:
    """A transcript's row, without the kinds of things that were lost."""
    row = transcript_to_dict(transcript)
    for kind in lost & {"id", "metadata", "tools", "messages"}:
        row.pop(kind)
    for message in row.get("messages", []):
        for key in lost:
            message.pop(key if key != "empty_content" or message.get("content") else "content", None)
    if lost & {"id"} or row.get("id") == str(HERE):
        row.pop("id", None)
    return row


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=150, deadline=None)
@given(transcript=transcripts)
def test_what_the_report_does_not_name_is_preserved_exactly(name, transcript):
    report, back = through(transcript, name)
    assert (report.rows, report.converted + report.left_out) == (1, 1) and report.written == len(back)
    lost = set(report.lost)
    if name == "canonical":
        assert not lost and not report.left_out
    if report.left_out:
        assert not back and len(report.reasons) == 1
    elif not report.split:
        assert without(back[0], lost) == without(transcript, lost)
    else:  # each answer that counts has become a row, with what was before it
        counted = [n for n, m in enumerate(transcript.messages) if m.role == "assistant" and m.train]
        assert len(back) == len(counted) == report.written
        for part, turn in zip(back, counted, strict=True):
            before = [replace(m, train=m.train and m.role != "assistant") for m in transcript.messages[:turn]]
            expected = replace(transcript, messages=(*before, transcript.messages[turn]))
            assert without(part, lost) == without(expected, lost)
            assert [n for n, m in enumerate(part.messages) if m.role == "assistant" and m.train] == [turn]


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=60, deadline=None)
@given(chat=plain_chats)
def test_a_plain_chat_loses_nothing(name, chat):
    transcript = Transcript(str(HERE), chat, source=HERE)
    report, back = through(transcript, name)
    assert not report.lost and not report.left_out
    assert back[-1].messages == chat or report.split


def test_losses_are_named_by_kind():
    full = Transcript(
        "a", (Message("user", "q", name="n"), Message("assistant", "a", "r", train=False)), ({},), {"t": 1}
    )
    bare = Transcript(str(HERE), (Message("user", "q"), Message("assistant", "b")), source=HERE)
    assert set(losses(full, bare)) == {"id", "metadata", "tools", "content", "reasoning_content", "name", "weight"}
    assert set(losses(full, full)) == set()
    cut = replace(full, metadata={"finish_reason": "length"})
    assert set(losses(cut, replace(cut, metadata={}))) == {"metadata", "finish_reason"}
    assert set(losses(full, replace(full, messages=full.messages[:1]))) == {"messages"}


@pytest.fixture
def chats_file(tmp_path):
    rows = [
        {"id": "1", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "x": 1}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]},
        {"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "b"}], "metadata": {"n": 1}},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_reports_what_was_lost_and_left_out(chats_file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["convert", str(chats_file), str(out), "--to", "alpaca"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "2 of 3 rows converted to alpaca",
        f"lost in 1 row (first: {chats_file}:1): message field `x`",
        f"lost in 1 row (first: {chats_file}:3): metadata (teacher, finish reason, usage, other columns)",
        f"left out 1 row (first: {chats_file}:2): Alpaca has no tool calls and no tool messages",
    ]
    assert out.read_text().splitlines() == [
        '{"id": "1", "instruction": "q", "input": "", "output": "a"}',
        '{"instruction": "ü", "input": "", "output": "b"}',
    ]


def test_json_is_the_report_and_standard_output_can_be_the_target(chats_file, tmp_path, capsys):
    assert main(["convert", str(chats_file), str(tmp_path / "o"), "--to", "sharegpt", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["converted"], report["left_out"], report["written"]) == (3, 3, 0, 3)
    assert report["lost"]["metadata"] == {"rows": 1, "example": f"{chats_file}:3"}
    assert main(["convert", str(chats_file), "-", "--to", "sharegpt"]) == 0
    assert capsys.readouterr().out == (tmp_path / "o").read_text()
    assert main(["convert", str(chats_file), "-", "--to", "sharegpt", "--json"]) == 2


def test_a_file_is_never_replaced_unasked_or_by_half(chats_file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    words = ["convert", str(chats_file), str(out), "--to", "sharegpt"]
    assert main(words) == 2 and out.read_text() == "precious"
    with chats_file.open("a") as file:
        file.write("{\n")
    assert main([*words, "--force"]) == 1 and out.read_text() == "precious"
    chats_file.write_text("".join(chats_file.read_text().splitlines(keepends=True)[:-1]))
    assert main([*words, "--force"]) == 0 and len(out.read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "out.jsonl"]
    assert main(["convert", str(chats_file), str(chats_file), "--to", "canonical", "--force"]) == 0
    assert len(chats_file.read_text().splitlines()) == 3
    assert main(["convert", str(chats_file), str(tmp_path), "--to", "openai"]) == 2


@pytest.mark.parametrize(
    ("content", "words"), [("", "is empty"), ('{"messages": [{"role": "user", "content": "q"}]}', "no row")]
)
def test_nothing_to_write_writes_nothing(tmp_path, capsys, content, words):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(content)
    assert main(["convert", str(source), str(out), "--to", "prompt-completion"]) == 1
    assert words in capsys.readouterr().err and not out.exists()


def test_train_and_show_read_the_same_formats(bloom, tmp_path, capsys):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": "dog?", "input": "", "output": "perro"}]))
    student = ["--student", str(bloom)]
    assert main(["train", str(path), *student, "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained_rows"] == 1
    for words in ([], ["--from", "alpaca"]):
        assert main(["show", str(path), *student, *words]) == 0
        assert "⟦perro<|im_end|>⟧" in capsys.readouterr().out
    assert main(["show", str(path), *student, "--from", "sharegpt"]) == 1
    assert "no list of `conversations`" in capsys.readouterr().err
