"""Prompt files: what is read, and what is refused at which line."""

from __future__ import annotations

import json
import os
import threading

import pytest

from distill.collection.prompts import open_prompts, prompt_to_dict
from distill.errors import DataError
from distill.types import Message


def prompts_of(path, **kwargs):
    with open_prompts(path) as file:
        file.count()
        return list(file.read(**kwargs))


def test_text_has_one_prompt_a_line(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffone\r\n\n  \nzwei \u2028 drei\nlast".encode())
    read = prompts_of(path)
    assert [prompt.messages for prompt in read] == [
        (Message("user", "one"),),
        (Message("user", "zwei \u2028 drei"),),
        (Message("user", "last"),),
    ]
    assert [str(prompt.source) for prompt in read] == [f"{path}:1", f"{path}:4", f"{path}:5"]


def test_rows_of_all_three_kinds(prompts):
    tools = [{"type": "function", "function": {"name": "f"}}]
    path = prompts(
        [
            {"prompt": "a", "id": 7, "metadata": {"topic": "x"}, "system": "own"},
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}], "tools": tools},
            {"turns": ["c", "d", "e"]},
        ]
    )
    one, two, three = prompts_of(path, system="given")
    assert one.messages == (Message("system", "own"), Message("user", "a"))
    assert (one.id, one.metadata) == ("7", {"topic": "x"})
    assert two.messages == (Message("system", "s"), Message("user", "b"))
    assert list(two.tools) == tools
    assert three.messages == (Message("system", "given"), Message("user", "c"))
    assert three.followups == (Message("user", "d"), Message("user", "e"))
    assert prompt_to_dict(three)["followups"] == [{"role": "user", "content": text} for text in "de"]
    assert len(prompts_of(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "Expecting"),
        ("[1]", "JSON object"),
        ('{"prompt": NaN}', "NaN is not JSON"),
        ("{}", "none of"),
        ('{"prompt": "a", "turns": ["b"]}', "`prompt` and `turns`"),
        ('{"prompt": 5}', "a number, not text"),
        ('{"prompt": ["a"]}', "a list, not text"),
        ('{"prompt": "  "}', "empty"),
        ('{"prompt": "\\ud83d"}', "surrogate"),
        ('{"prompt": "a", "metadata": {"x": "\\ud83d"}}', "surrogate"),
        ('{"prompt": "a", "metadata": 1}', "`metadata`"),
        ('{"prompt": "a", "tools": ["f"]}', "`tools`"),
        ('{"prompt": "a", "system": 1}', "`system`"),
        ('{"prompt": "a", "id": [1]}', "`id`"),
        ('{"turns": "a"}', "`turns`"),
        ('{"turns": []}', "`turns`"),
        ('{"turns": ["a", ""]}', "empty"),
        ('{"messages": []}', "`messages`"),
        ('{"messages": [{"role": "boss", "content": "a"}]}', "unknown role 'boss'"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "'assistant'"),
        ('{"messages": [{"role": "system", "content": "a"}]}', "ends on"),
        ('{"messages": [{"role": "user", "content": ""}]}', "empty"),
        (
            '{"system": "a", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}',
            "system",
        ),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, words):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + row + "\n")
    with pytest.raises(DataError) as caught:
        prompts_of(path)
    assert caught.value.message.startswith(f"{path}:3:")
    assert words in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p"])
def test_an_empty_file(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"no prompt|Expecting value"):
        prompts_of(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"p\.txt:2:"):
        prompts_of(path)


def test_missing_or_a_folder(tmp_path):
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            prompts_of(path)


def test_a_pipe_is_read_again(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(json.dumps({"prompt": "a"}) + "\n",))
    writer.start()
    assert [prompt.messages[0].content for prompt in prompts_of(path)] == ["a"]
    writer.join()


def test_a_malformed_row_costs_nothing(cli, server, prompts, out):
    path = prompts([{"prompt": f"p{n}"} for n in range(50)] + [{"promt": "x"}])
    ran = cli("collect", path, "--teacher", "openai:m", "--base-url", server.url, "--out", out)
    assert ran.code == 1
    assert f"Error: {path}:51: " in ran.err
    assert server.asked == []
    assert not out.exists()


@pytest.mark.parametrize("text", ["one\ntwo\n", '{"prompt": "one"}\n{"prompt": "two"}\n'])
def test_standard_input(spawn, server, out, read, text):
    process = spawn("collect", "-", "--teacher", "openai:m", "--base-url", server.url, "--out", out, stdin=-1)
    _, err = process.communicate(text, timeout=30)
    assert process.returncode == 0, err
    rows = read(out)
    assert sorted(row["messages"][0]["content"] for row in rows) == ["one", "two"]
    assert {row["metadata"]["source"]["file"] for row in rows} == {"<stdin>"}
