"""Any teacher a plugin offers: asked one at a time or in batches, and blamed by name for what it does wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import pytest

import distill
from distill import Answer, Message, TeacherError, TeacherSpec
from distill.collection import CollectSettings, collect
from distill.errors import DistillError, PluginError, UsageError
from distill.plugins import PluginRecord
from distill.types import CollectRun, Transcript


def good(request, **kwargs):
    return Answer(Message("assistant", f"echo: {request.messages[-1].content}"), **kwargs)


def manager_with(*specs, **hooks):
    """A plugin manager with a plugin named `mine` that offers the teachers."""

    class Plugin:
        @distill.hookimpl
        def register_teachers(self):
            return specs

    for name, function in hooks.items():
        setattr(Plugin, name, distill.hookimpl(function))
    manager = distill.make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    manager.load(PluginRecord("mine", "file"), Plugin)
    assert not manager.failed(), manager.failures()
    return manager


@pytest.fixture
def run(prompts, out):
    """Collect from a teacher object."""

    def collected(teacher, count=6, rows=None, hooks=None, **kwargs):
        manager = manager_with(TeacherSpec("own", "", lambda options, model: teacher), **(hooks or {}))
        return collect(prompts(rows or count), out, CollectSettings("own", **kwargs), manager)

    return collected


class Async:
    async def ask(self, request):
        return good(request)


class Sync:
    def ask(self, request):
        return good(request)


class Wrapped:
    def ask(self, request):  # a plain function that gives something to await
        return Async().ask(request)


class Batch:
    batch_size = 4

    def __init__(self):
        self.batches = []

    def ask_batch(self, requests):
        self.batches.append([request.messages[-1].content for request in requests])
        self.thread = threading.current_thread()
        return [good(request) for request in requests]


@pytest.mark.parametrize("kind", [Async, Sync, Wrapped, Batch])
def test_every_kind_of_teacher(run, out, read, kind):
    summary = run(kind(), 10)
    assert (summary.rows, summary.failed, summary.requests) == (10, 0, 10)
    rows = read(out)
    assert {row["messages"][-1]["content"] for row in rows} == {f"echo: prompt {n}" for n in range(10)}
    assert {row["metadata"]["teacher"] for row in rows} == {"own"}


def test_a_batch_teacher_gets_full_batches_in_one_thread(run):
    teacher = Batch()
    run(teacher, 10)
    assert [len(batch) for batch in teacher.batches] == [4, 4, 2]
    assert teacher.thread is not threading.main_thread()


def test_turns_go_in_lockstep(run):
    teacher = Batch()
    rows = [{"turns": ["a0", "a1", "a2"]}, {"turns": ["b0", "b1"]}, {"prompt": "c0"}, {"turns": ["d0", "d1"]}]
    summary = run(teacher, rows=rows)
    assert teacher.batches == [["a0", "b0", "c0", "d0"], ["a1", "b1", "d1"], ["a2"]]
    assert (summary.rows, summary.requests) == (4, 8)


def test_places_of_finished_conversations_are_taken_at_once(run):
    teacher = Batch()
    run(teacher, rows=[{"turns": ["a0", "a1"]}, *({"prompt": f"p{n}"} for n in range(6))])
    assert teacher.batches == [["a0", "p0", "p1", "p2"], ["a1", "p3", "p4", "p5"]]


def test_some_of_a_batch_fail(run, failures):
    class Picky(Batch):
        seen = 0

        def ask_batch(self, requests):
            answers = super().ask_batch(requests)
            for n, request in enumerate(requests):
                text = request.messages[-1].content
                if text == "prompt 1":
                    answers[n] = TeacherError("too long")
                if text == "prompt 2" and self.seen < 2:
                    self.seen += 1
                    answers[n] = TeacherError("busy", retryable=True)
                if text == "prompt 3":
                    answers[n] = "text"
            return answers

    summary = run(Picky(), 6)
    assert (summary.rows, summary.failed) == (4, 2)
    errors = {row["prompt"]["messages"][0]["content"]: row["error"] for row in failures()}
    assert errors == {"prompt 1": "too long", "prompt 3": "plugin 'mine' returned a str, not an Answer"}


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (lambda self, requests: 1 / 0, "ZeroDivisionError"),
        (lambda self, requests: [], "asked for 4 answers, ask_batch returned 0"),
        (lambda self, requests: None, "returned a NoneType"),
        (lambda self, requests: (good(request) for request in requests), "returned a generator"),
    ],
)
def test_a_batch_teacher_that_breaks_its_contract(run, method, says):
    teacher = type("Bad", (), {"batch_size": 4, "ask_batch": method})()
    summary = run(teacher, 4)
    assert summary.failed == 4
    [reason] = summary.reasons
    assert says in reason and "plugin 'mine'" in reason


class Unruly:
    """Does something wrong for some prompts."""

    def ask(self, request):
        text = request.messages[-1].content
        if text == "raise":
            raise RuntimeError("two\nlines\x1b[31m")
        if text == "exit":
            sys.exit(3)
        if text == "stop":
            raise StopIteration
        wrong = {
            "none": None,
            "text": "an answer",
            "user": Answer(Message("user", "a")),
            "bytes": Answer(Message("assistant", b"a")),
            "nan": Answer(Message("assistant", "a"), usage={"x": float("nan")}),
            "set": Answer(Message("assistant", "a", tool_calls=({"f": {1}},))),
            "surrogate": Answer(Message("assistant", "a\ud83db", reasoning_content="\ud83d"), usage={"\ud83d": 1}),
        }
        return wrong.get(text) if text in wrong else good(request)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_plugin_that_fails_for_some_prompts_fails_those_rows(run, out, read, failures, asynchronous):
    class Teacher:
        async def ask(self, request):
            return Unruly().ask(request)

    bad = ["raise", "exit", "stop", "none", "text", "user", "bytes", "nan", "set"]
    rows = [word for pair in zip(bad, "abcdefghi", strict=True) for word in pair]
    summary = run(Teacher() if asynchronous else Unruly(), rows=[*rows, "surrogate"], retries=3)
    assert (summary.rows, summary.failed, summary.requests) == (10, 9, 19)
    errors = {row["prompt"]["messages"][0]["content"]: row["error"] for row in failures()}
    assert set(errors) == set(bad)
    assert all("plugin 'mine'" in error and error.isprintable() for error in errors.values())
    assert "two" in errors["raise"] and "lines" not in errors["raise"]
    [row] = [row for row in read(out) if row["messages"][0]["content"] == "surrogate"]
    assert row["messages"][-1]["content"] == "a\ufffdb"


def test_an_error_of_the_set_up_stops_the_run(run, out):
    class NoModel:
        batch_size = 2

        def ask_batch(self, requests):
            raise DistillError("model 'x': not found", "check the name")

    with pytest.raises(DistillError, match="model 'x': not found"):
        run(NoModel(), 100)
    assert out.read_bytes() == b""


@pytest.mark.parametrize("teacher", [object(), type("B", (), {"batch_size": 0, "ask_batch": len})()])
def test_what_is_no_teacher_is_blamed(run, teacher):
    with pytest.raises(PluginError, match="plugin 'mine'"):
        run(teacher)


def test_a_builder_that_fails_is_blamed(prompts, out):
    manager = manager_with(TeacherSpec("own", "", lambda options, model: 1 / 0))
    with pytest.raises(PluginError, match=r"plugin 'mine' cannot build the teacher 'own': ZeroDivisionError"):
        collect(prompts(1), out, CollectSettings("own"), manager)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_close_is_called_once(run, asynchronous, caplog):
    class Closing(Async):
        closed = 0

        def close(self):
            self.closed += 1
            raise RuntimeError("cannot")

    class AsyncClosing(Closing):
        async def close(self):
            Closing.close(self)

    teacher = AsyncClosing() if asynchronous else Closing()
    with caplog.at_level("WARNING", "distill"):
        run(teacher)
    assert teacher.closed == 1
    assert "plugin 'mine' failed in close(): RuntimeError: cannot" in caplog.text


def test_sync_teachers_are_asked_at_the_same_time(run):
    class Meeting:
        barrier = threading.Barrier(5, timeout=10)

        def ask(self, request):
            self.barrier.wait()
            return good(request)

    assert run(Meeting(), 10, concurrency=5).rows == 10


def test_a_plugin_that_fails_for_every_row_stops_the_run(run):
    class Broken:
        async def ask(self, request):
            raise KeyError("model")

    with pytest.raises(TeacherError, match=r"20 rows in a row met the same refusal: .*KeyError"):
        run(Broken(), 300, concurrency=1)


def test_memory_holds_no_more_prompts_than_are_asked(run):
    """The reader is lazy: it is never far ahead of the answers."""
    alive, most = [0], [0]

    class Counting:
        async def ask(self, request):
            alive[0] += 1
            most[0] = max(most[0], alive[0], len(asyncio.all_tasks()))
            await asyncio.sleep(0)
            alive[0] -= 1
            return good(request)

    assert run(Counting(), 3000, concurrency=8).rows == 3000
    assert most[0] <= 8 + 10


def test_observers_see_each_transcript_on_disk(run, out, caplog):
    seen = []

    def transcript_collected(self, transcript, run):
        assert json.loads(out.read_text().splitlines()[-1])["id"] == transcript.id
        seen.append((transcript, run))
        if len(seen) == 2:
            raise RuntimeError("watching is hard")

    with caplog.at_level("WARNING", "distill"):
        summary = run(Async(), 4, hooks={"transcript_collected": transcript_collected})
    assert (summary.rows, len(seen)) == (4, 4)
    assert all(isinstance(one, Transcript) and given == CollectRun(out, "own") for one, given in seen)
    assert "'mine' failed in transcript_collected: RuntimeError: watching is hard" in caplog.text


def test_inside_a_running_loop(run):
    async def notebook():
        return run(Async(), 3)

    assert asyncio.run(notebook()).rows == 3


@pytest.mark.parametrize(
    "kwargs",
    [
        {"samples": 0},
        {"concurrency": 0},
        {"retries": -1},
        {"limit": 0},
        {"max_tokens": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
    ],
)
def test_arguments_that_do_not_fit(run, kwargs):
    with pytest.raises(UsageError):
        run(Async(), **kwargs)
