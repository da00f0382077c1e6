"""`check_teacher` and `check_http_teacher` let the good ones pass, and name what each bad one does."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest

from distill import Answer, Message, Request, TeacherError
from distill.builtin.teachers.openai import OpenAIOptions, OpenAITeacher
from distill.testing import ScriptedTeacher, check_http_teacher, check_teacher, completion, run_checks, teacher_checks


class Plain:
    """A teacher that answers in a thread."""

    answer: object = Answer(Message("assistant", "yes"))

    def ask(self, request):
        return self.answer


class Batch:
    batch_size = 2

    def ask_batch(self, requests):
        return [Answer(Message("assistant", request.messages[0].content)) for request in requests]


def teacher(answer):
    made = Plain()
    made.answer = answer
    return made


class ShortBatch(Batch):
    def ask_batch(self, requests):
        return super().ask_batch(requests)[1:]


class CannotClose(Plain):
    def close(self):
        raise ValueError("busy")


class Files(Plain):
    """A teacher whose requests can go through batch files."""

    def batch_request(self, id, request):
        return {"custom_id": id, "body": {"question": request.messages[-1].content}}

    def batch_answer(self, row):
        if "answer" not in row:
            raise TeacherError("no answer")
        return Answer(Message("assistant", row["answer"]))


class FilesWithoutId(Files):
    def batch_request(self, id, request):
        return {}


class FilesThatTakeAnything(Files):
    def batch_answer(self, row):
        return self.answer


class HalfOfFiles(Plain):
    batch_request = Files.batch_request


BAD = {
    "files without the id": (FilesWithoutId(), "custom_id=None"),
    "files that take anything": (FilesThatTakeAnything(), "for a line without an answer"),
    "half of the files' methods": (HalfOfFiles(), "only one of `batch_request` and `batch_answer`"),
    "no Answer": (teacher("yes"), "returned a str, not an Answer"),
    "another role": (teacher(Answer(Message("user", "yes"))), "no assistant message"),
    "empty": (teacher(Answer(Message("assistant", " "))), "the answer is empty"),
    "raises": (ScriptedTeacher([ValueError("no")]), "failed: ValueError: no; a failed request raises"),
    "refuses": (ScriptedTeacher([TeacherError("no key", "get one")]), "no key (get one)"),
    "usage": (teacher(Answer(Message("assistant", "yes"), usage={"at": object()})), "not JSON serializable"),
    "batch": (ShortBatch(), "asked for 2 answers, ask_batch returned 1"),
    "close": (CannotClose(), "close() raised ValueError('busy')"),
    "nothing": (object(), "has neither `ask` nor `ask_batch`"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_teacher_is_told_what(case):
    made, complaint = BAD[case]
    with pytest.raises(AssertionError) as caught:
        check_teacher(made)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "made", [Plain(), Batch(), Files(), ScriptedTeacher(["one", Answer(Message("assistant", "two"))])]
)
def test_good_teachers_pass(made):
    check_teacher(made)


def test_it_is_asked_no_more_than_it_is_told_to():
    made = ScriptedTeacher()
    outcomes = list(run_checks(teacher_checks(made, questions=["Only this?"])))
    assert all(outcome.status == "passed" for outcome in outcomes) and len(outcomes) == 5
    assert [request.messages[0].content for request in made.asked] == ["Only this?"] and made.closed
    untouched = ScriptedTeacher()
    assert [outcome.status for outcome in run_checks(teacher_checks(untouched, questions=()))] == ["passed"]
    assert untouched.asked == []


def test_the_scripted_teacher_follows_its_script():
    made = ScriptedTeacher(["a", TeacherError("b")])
    request = Request([Message("user", "?")])
    assert asyncio.run(made.ask(request)).message.content == "a"
    with pytest.raises(TeacherError, match="b"):
        asyncio.run(made.ask(request))
    assert asyncio.run(made.ask(request)).message.content == "a"


def test_the_built_in_http_teacher_stands_every_fault(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    check_http_teacher(
        lambda url: OpenAITeacher(OpenAIOptions(base_url=f"{url}/v1", timeout=20), "m"),
        good=lambda asked: completion(asked.text),
    )


class Careless:
    """What one writes in a hurry: follows redirects, and takes every failure for the same."""

    def __init__(self, url):
        self.url = url

    def ask(self, request):
        data = b'{"messages": [{"role": "user", "content": "hi"}]}'
        try:
            with urllib.request.urlopen(self.url + "/v1/chat", data=data, timeout=20) as response:
                return Answer(Message("assistant", response.read().decode()))
        except OSError as error:
            raise TeacherError(f"failed:\n{error}") from error


def test_a_careless_http_teacher_is_told_which_faults_it_mistakes():
    with pytest.raises(AssertionError) as caught:
        check_http_teacher(Careless, good=lambda asked: completion(asked.text))
    told = str(caught.value)
    for fault in ("429 with Retry-After: 7", "500", "a web page", "broken JSON", "a connection that is reset"):
        assert f"✗ the server answers with {fault}\n" in told
    assert "is not one line" in told and "instead of a distill.TeacherError" in told
