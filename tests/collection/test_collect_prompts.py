"""Prompt files: what is read, and what is refused at which line."""

from __future__ import annotations

import gzip
import json
import os
import threading

import pytest

from distill.collection.plan import make_plan
from distill.collection.prompts import PromptReader, open_prompts, prompt_to_dict
from distill.collection.settings import CollectSettings
from distill.errors import DataError
from distill.plugins import make_plugin_manager
from distill.types import Message, Prompt


def prompts_of(path, limit=None, **settings):
    with open_prompts(path, PromptReader(**settings)) as opened:
        everything = list(opened.read())
        assert everything[:limit] == list(opened.read(limit)), "it can be read again"
        return everything[:limit]


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
    plan = make_plan(CollectSettings("replay:x"), make_plugin_manager(environ={"DISTILL_PLUGINS": ""}))
    with pytest.raises(DataError, match=r"no prompt|Expecting value"), plan.open(path) as opened:
        plan.total(opened)


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


FORMATS = {
    "p.jsonl": '{"prompt": "dog?", "id": 1}\n{"prompt": "cat?", "id": 2}\n',
    "p.json": '[\n  {"prompt": "dog?", "id": "1"},\n  {"prompt": "cat?", "id": "2"}\n]\n',
    "p.csv": "id,prompt\n1,dog?\n2,cat?\n",
    "p.tsv": "id\tprompt\n1\tdog?\n2\tcat?\n",
    "rows": '[{"prompt": "dog?", "id": "1"}, {"prompt": "cat?", "id": "2"}]',
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_what_it_is(tmp_path, name, zipped):
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(FORMATS[name].encode()) if zipped else FORMATS[name].encode())
    assert [(one.id, one.messages[0].content) for one in prompts_of(path)] == [("1", "dog?"), ("2", "cat?")]


def test_parquet_and_frames_and_lists(tmp_path):
    pandas, parquet = pytest.importorskip("pandas"), tmp_path / "p.parquet"
    frame = pandas.DataFrame({"prompt": ["dog?", "cat?"], "system": ["Be brief.", None]})
    frame.to_parquet(parquet)
    rows = [{"prompt": "dog?", "system": "Be brief."}, "cat?"]
    prompt = Prompt((Message("system", "Be brief."), Message("user", "dog?")))
    for given in (parquet, frame, rows, [prompt, "cat?"], iter(rows)):
        first, second = prompts_of(given)
        assert first.messages == (Message("system", "Be brief."), Message("user", "dog?"))
        assert second.messages == (Message("user", "cat?"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "dog?"}\n', "holds JSON"),
        ('[\n{"prompt": "dog?"}\n]', "holds JSON"),
        ("id,prompt\n1,dog?\n", "looks like CSV"),
        ("id\tprompt\n1\tdog?\n", "looks like TSV"),
        ("- prompt: dog?\n- prompt: cat?\n", "looks like YAML"),
    ],
)
def test_rows_under_the_name_of_a_text_are_refused(tmp_path, text, says):
    path = tmp_path / "p.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        prompts_of(path)


def test_a_file_of_an_unknown_ending_is_not_asked_line_by_line(tmp_path):
    for name in ("p.md", "p.yaml", "p.html"):
        (tmp_path / name).write_text("# Animals\n\nTranslate: dog\n")
        with pytest.raises(DataError, match="is not read as prompts"):
            prompts_of(tmp_path / name)
    (tmp_path / "prompts").write_text("dog?\n")
    assert len(prompts_of(tmp_path / "prompts")) == 1


def test_a_text_may_start_with_a_bracket(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("[Translate] dog\n{cat}\n")
    assert [one.messages[0].content for one in prompts_of(path)] == ["[Translate] dog", "{cat}"]


@pytest.mark.parametrize(
    ("row", "says", "hint"),
    [
        ({"prompt": "a", "sytem": "x"}, "`sytem`", "did you mean `system`"),
        ({"prompt": "a", "generation_params": {}}, "`generation_params`", "--allow-unknown"),
        ({"prompt": "a", "images": ["a.png"]}, "`images`", "text"),
        ({"prompt": "a", "max_tokens": 0}, "`max_tokens` is 0", "from 1"),
        ({"prompt": "a", "temperature": "hot"}, "`temperature`", "number"),
        ({"prompt": "a", "top_p": 0.5, "params": {"top_p": 0.9}}, "`top_p`", "leave one"),
        ({"prompt": "a", "teacher_system": 3}, "`teacher_system`", None),
        ({"prompt": "a", "params": {"model": "other"}}, "must not set `model`", "same for all rows"),
        ({"prompt": "a", "params": {"n": 3}}, "must not set `n`", "--samples"),
    ],
)
def test_a_key_is_understood_or_refused(row, says, hint):
    with pytest.raises(DataError) as caught:
        prompts_of([{"prompt": "fine"}, row])
    assert caught.value.message.startswith("<list>:2: ") and says in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_unknown_keys_may_be_allowed_and_null_is_no_key():
    (one,) = prompts_of([{"prompt": "a", "topic": "x", "sytem": None, "metadata": {"n": 1}}], allow_unknown=True)
    assert one.metadata == {"n": 1, "topic": "x"}
    (one,) = prompts_of([{"prompt": "a", "system": None, "images": [], "turns": None}], allow_unknown=True)
    assert one.messages == (Message("user", "a"),)


def test_parameters_of_a_row(ask, prompts, out, read):
    """They are sent, they count before the common ones, and they are a part of the row's id."""
    rows = [
        {"prompt": "a"},
        {"prompt": "a", "temperature": 0.5, "max_tokens": 7},
        {"prompt": "a", "params": {"top_p": 0.9, "seed": 3}},
        {"prompt": "a", "max_completion_tokens": 7, "temperature": 0.5},  # the second once more
    ]
    words = ["--max-tokens", 20, "--samples", 1]
    ran, server = ask([], *words, file=prompts(rows))
    assert ran.code == 0, ran.err
    assert (ran.summary["rows"], ran.summary["duplicates"]) == (3, 1)
    sent = [{key: asked.body[key] for key in asked.body if key not in ("model", "messages")} for asked in server.asked]
    wanted = [{"max_tokens": 20}, {"max_tokens": 7, "temperature": 0.5}, {"max_tokens": 20, "top_p": 0.9, "seed": 3}]
    assert len(sent) == 3 and all(one in sent for one in wanted)
    params = {str(row["metadata"]["params"]): row["metadata"].get("prompt_params") for row in read(out)}
    assert params["{'max_tokens': 7, 'temperature': 0.5}"] == ["max_tokens", "temperature"]
    ran, server = ask([], *words, file=prompts(rows))
    assert (ran.code, server.asked, ran.summary["cached"]) == (0, [], 3)


def test_a_parameter_that_the_teacher_would_ignore_is_refused(cli, prompts, out, tmp_path):
    (tmp_path / "t.jsonl").write_text("")
    path = prompts([{"prompt": "a", "top_p": 0.5}])
    ran = cli("collect", path, "--teacher", f"replay:{tmp_path / 't.jsonl'}", "--out", out)
    assert ran.code == 2 and f"{path}:1" in ran.err and "'top_p'" in ran.err
