"""What only the teacher sees: it is sent, it is a part of the row's id and metadata, and never of its messages."""

from __future__ import annotations

import pytest

from distill.collection.conversation import as_teacher_sees
from distill.dataset.conversations import describe
from distill.dataset.findings import CODES, Findings
from distill.types import Message, Transcript

TASK = "You translate into Spanish. Answer with one word."
EXAMPLES = [{"role": "user", "content": "cat?"}, {"role": "assistant", "content": "gato"}]


def contents(asked):
    return [(message["role"], message["content"]) for message in asked.body["messages"]]


def test_the_teacher_sees_it_and_the_row_says_so(ask, out, read):
    ran, server = ask([], "--teacher-system", TASK, "--system", "Be kind.")
    assert ran.code == 0, ran.err
    assert contents(server.asked[0]) == [("system", f"{TASK}\n\nBe kind."), ("user", "prompt 0")]
    (row,) = read(out)
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][0]["content"] == "Be kind."
    assert row["metadata"]["teacher_messages"] == [{"role": "system", "content": TASK}]


def test_it_is_a_part_of_the_id(ask, out, read):
    ask([])
    ran, _ = ask([], "--teacher-system", TASK)
    assert ran.code == 0 and ran.summary["rows"] == 1 and ran.summary["others"] == 1
    assert ask([], "--teacher-system", TASK)[0].summary["cached"] == 1
    assert len({row["id"] for row in read(out)}) == 2


def test_it_may_come_from_a_file(ask, tmp_path):
    (tmp_path / "task.md").write_text(f"{TASK}\n")
    ran, server = ask([], "--teacher-system", f"@{tmp_path / 'task.md'}")
    assert ran.code == 0 and contents(server.asked[0])[0] == ("system", TASK)
    ran, server = ask([], "--teacher-system", f"@{tmp_path / 'nothing'}")
    assert ran.code == 2 and "nothing" in ran.err and server.asked == []


def test_examples_of_a_row_come_before_its_conversation(ask, prompts, out, read):
    row = {"turns": ["dog?", "bird?"], "teacher_messages": EXAMPLES, "system": "Be kind."}
    ran, server = ask([], "--teacher-system", TASK, file=prompts([row, {"prompt": "x", "teacher_system": "Own."}]))
    assert ran.code == 0, ran.err
    by_first = {asked.body["messages"][0]["content"]: contents(asked) for asked in server.asked}
    last = by_first[f"{TASK}\n\nBe kind."]
    assert last[1:4] == [("user", "cat?"), ("assistant", "gato"), ("user", "dog?")] and last[-1] == ("user", "bird?")
    assert by_first["Own."] == [("system", "Own."), ("user", "x")]
    rows = {len(one["messages"]): one for one in read(out)}
    assert [message["content"] for message in rows[5]["messages"]][:2] == ["Be kind.", "dog?"]
    assert "gato" not in str(rows[5]["messages"])


def transcript(text, teacher):
    metadata = {"teacher_messages": [{"role": "system", "content": teacher}]}
    return Transcript("x", (Message("user", text), Message("assistant", "perro")), metadata=metadata)


def test_check_finds_it_in_a_conversation():
    findings = Findings()
    describe([transcript("dog?", TASK), transcript(f"{TASK} dog?", TASK), transcript("dog?", "")], findings)
    assert findings.counts == {"teacher-prompt": 1}
    assert findings.rows["teacher-prompt"][0][1] == "message 0 (user)"
    assert CODES["teacher-prompt"].severity == "error"


SYSTEM, USER = Message("system", "s"), Message("user", "u")
TEACHER, EXAMPLE = Message("system", "t"), Message("user", "e")


@pytest.mark.parametrize(
    ("teacher", "messages", "seen"),
    [
        ((), (SYSTEM, USER), (SYSTEM, USER)),
        ((TEACHER,), (USER,), (TEACHER, USER)),
        ((TEACHER, EXAMPLE), (SYSTEM, USER), (Message("system", "t\n\ns"), EXAMPLE, USER)),
        ((EXAMPLE,), (SYSTEM, USER), (SYSTEM, EXAMPLE, USER)),
        ((EXAMPLE,), (USER,), (EXAMPLE, USER)),
    ],
)
def test_one_system_message_comes_first(teacher, messages, seen):
    assert as_teacher_sees(teacher, messages) == seen


def test_replay_knows_the_answer_to_what_the_teacher_saw(ask, cli, prompts, out, tmp_path, read):
    words, file = ["--teacher-system", TASK], prompts([{"prompt": "dog?", "teacher_messages": EXAMPLES}])
    assert ask([], *words, file=file)[0].code == 0
    again = tmp_path / "again.jsonl"
    ran = cli("collect", file, "--teacher", f"replay:{out}", "--out", again, *words)
    assert ran.code == 0, ran.err
    assert read(again)[0]["messages"] == read(out)[0]["messages"]
