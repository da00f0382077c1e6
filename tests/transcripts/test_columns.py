"""Columns: what changes the meaning of a row refuses it, what nobody knows is kept and told once, null is nothing."""

from __future__ import annotations

import json

import pytest

from distill import RefusedRow, make_plugin_manager
from distill.cli.main import main
from distill.dataset.check import check
from distill.dataset.pipeline import make_pipeline
from distill.dataset.settings import DataSettings
from distill.transcripts.reader import make_reader
from distill.types import Source

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
TALK = [{"role": "user", "content": "dog?"}, {"role": "assistant", "content": "Perro."}]
SHAPES = [
    {"messages": TALK},
    {"conversations": [{"from": "human", "value": "dog?"}, {"from": "gpt", "value": "Perro."}]},
    {"instruction": "dog?", "input": "", "output": "Perro."},
    {"prompt": "dog?", "completion": "Perro."},
]


def read(row, **options):
    return make_reader(None, MANAGER, **options).read(row, Source("f.jsonl", 3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"label": False}, "`label` is false: a rating"),
        ({"label": True}, "`label` is true: a rating"),
        ({"label": "bad"}, "`label` is 'bad': a rating"),
        ({"kto_tag": True}, "preferences (it has `kto_tag`)"),
        ({"chosen": "a", "rejected": "b"}, "preferences (it has `chosen`)"),
        ({"rating": -1}, "`rating` is -1: a bad rating"),
        ({"score": 0}, "`score` is 0: a bad rating"),
        ({"feedback": "thumbs_down"}, "a bad rating"),
        ({"images": ["a.png"]}, "has `images`"),
        ({"audio": {"bytes": "…"}}, "has `audio`"),
        ({"weight": 0}, "`weight` is 0: rows have no weights"),
        ({"loss_mask": [0, 1]}, "`loss_mask` is [0, 1]: rows have no weights"),
        ({"is_correct": False}, "`is_correct` is false: a bad rating"),
        ({"truncated": True}, "`truncated` is true: not a conversation to train"),
        ({"system_prompt": "Be kind."}, "rename it `system`"),
    ],
)
def test_a_column_that_changes_what_a_row_means_refuses_it_in_every_format(shape, column, words):
    with pytest.raises(RefusedRow) as caught:
        read({**shape, **column})
    assert caught.value.message.startswith("f.jsonl:3: ") and words in caught.value.message
    assert "--ignore-column" in caught.value.hint
    kept = read({**shape, **column}, ignored=tuple(column))
    assert kept.transcript.metadata == column and kept.unknown == tuple(column)


@pytest.mark.parametrize("shape", SHAPES)
def test_other_columns_are_kept_and_nulls_are_nothing(shape):
    others = {"label": "animals", "score": 0.9, "rating": 5, "images": [], "topic": "dogs", "weight": 1}
    nulls = dict.fromkeys(("chosen", "rejected", "messages", "conversations", "instruction", "prompt", "completion"))
    made = read({**nulls, **shape, **others})
    assert [(m.role, m.content) for m in made.transcript.messages] == [("user", "dog?"), ("assistant", "Perro.")]
    assert made.transcript.metadata == others and set(made.unknown) == set(others)


def test_rows_are_refused_one_by_one_and_counted(bloom, tmp_path, capsys):
    path = tmp_path / "kto.jsonl"
    rows = [{**SHAPES[0], "label": False}, {**SHAPES[1], "label": False}, {**SHAPES[0], "topic": "dogs"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(path, make_pipeline(DataSettings(str(bloom)), MANAGER))
    assert (report.rows, report.trained_rows, report.skipped_rows) == (3, 1, 2)
    found = {finding.code: finding for finding in report.findings}
    assert found["refused-row"].count == 2 and found["refused-row"].rows[0] == (
        f"{path}:1",
        "`label` is false: a rating, not a conversation to train",
    )
    assert found["unknown-column"].rows == [(f"{path}:3", "`topic`")]
    assert main(["convert", str(path), str(tmp_path / "o"), "--to", "openai"]) == 1
    assert "left out 2 rows" in capsys.readouterr().err
    words = ["--student", str(bloom), "--out", str(tmp_path / "run"), "--hold-out", "50%"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    assert main(["train", str(path), *words]) == 1
    assert f"{path}:1: `label` is false" in capsys.readouterr().err


def test_a_column_is_told_once_however_many_rows_have_it(bloom):
    data = [{**SHAPES[0], "topic": "dogs", "n": n} for n in range(20)]
    findings = {one.code: one for one in check(data, make_pipeline(DataSettings(str(bloom)), MANAGER)).findings}
    assert findings["unknown-column"].rows == [("<list>:1", "`topic`"), ("<list>:1", "`n`")]


THINK = "<think>\nA dog is perro.\n</think>\n\nPerro."


@pytest.mark.parametrize("answer", [THINK, THINK.removeprefix("<think>\n"), THINK.replace("think>", "thinking>")])
def test_thinking_in_an_answer_is_found_and_split(answer, bloom, capsys, tmp_path):
    row = {"messages": [TALK[0], {"role": "assistant", "content": answer}]}
    codes = [one.code for one in check([row], make_pipeline(DataSettings(str(bloom)), MANAGER)).findings]
    assert "thinking-in-answer" in codes
    settings = DataSettings(str(bloom), split_thinking=True)
    codes = [one.code for one in check([row], make_pipeline(settings, MANAGER)).findings]
    assert "thinking-in-answer" not in codes
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    words = ["convert", str(tmp_path / "in.jsonl"), "-", "--to", "canonical", "--split-thinking"]
    assert main(words) == 0
    written = json.loads(capsys.readouterr().out)["messages"][1]
    assert (written["content"], written["reasoning_content"]) == ("Perro.", "A dog is perro.")


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "Perro.", "reasoning": "Hm."},
        {"content": "Perro.", "reasoning_content": "Hm.", "reasoning": "Hm."},
        {"content": "Perro.", "reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Perro."}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, "Perro."]},
    ],
)
def test_reasoning_is_read_under_every_name(answer):
    message = read({"messages": [TALK[0], {"role": "assistant", **answer}]}).transcript.messages[1]
    assert (message.content, message.reasoning_content) == ("Perro.", "Hm.")


def test_openais_validator_takes_what_is_written(tmp_path, capsys):
    calls = [{"from": "function_call", "value": '{"name": "look", "arguments": {"q": "dog"}}'}]
    shown = [{"from": "human", "value": "dog?"}, *calls, {"from": "observation", "value": "perro"}]
    rows = [
        {"conversations": [*shown, {"from": "gpt", "value": "Perro."}, {"from": "human", "value": "Thanks."}]},
        {"conversations": shown[:1]},
        {"messages": [TALK[0], {"role": "assistant", "content": ""}]},
        {"conversations": [*shown[:1], *shown[2:], {"from": "gpt", "value": "Perro."}]},
        {"conversations": [*shown[:2], {"from": "human", "value": "?"}, {"from": "gpt", "value": "Perro."}]},
        {"messages": [*TALK[:1], {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["convert", str(path), str(tmp_path / "out.jsonl"), "--to", "openai"]) == 1
    first, second = [json.loads(line)["messages"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [message["role"] for message in first] == ["user", "assistant", "tool", "assistant"]
    (call,) = first[1]["tool_calls"]
    assert call == {"id": "call_1_0", "type": "function", "function": {"name": "look", "arguments": '{"q": "dog"}'}}
    assert first[2]["tool_call_id"] == "call_1_0"
    assert second[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    told = capsys.readouterr().err
    for reason in (
        "without an answer that counts",
        "no empty answers",
        "tool results without their call",
        "calls without their results",
    ):
        assert reason in told


def test_null_content_of_a_tool_and_the_developer_role_are_read(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    rows = [
        {"role": "developer", "content": "Be brief."},
        TALK[0],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": None},
        {"role": "assistant", "content": "Perro."},
    ]
    messages = read({"messages": rows}).transcript.messages
    assert [(m.role, m.content) for m in messages][::3] == [("system", "Be brief."), ("tool", "")]
