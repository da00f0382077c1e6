"""Large files: the same rows as in memory, in order, from a cache that is never stale, on all cores."""

from __future__ import annotations

import json
import os
import threading

import pytest

from distill import DataError, DistillError, PluginError, make_formatter
from distill.dataset import cache as room
from distill.dataset.cache import prepare_data
from distill.dataset.pipeline import Pipeline
from distill.dataset.prepare import prepare
from distill.dataset.table import Examples
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing import bloom_tokenizer
from distill.testing.tokenizers import TOKENIZERS
from distill.transcripts.reader import read_transcripts


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Everything is large."""
    monkeypatch.setattr(room, "SMALL", 2)
    monkeypatch.setattr(room, "CHUNK", 7)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pipeline(manager):
    return make_pipeline(manager)


def make_pipeline(
    manager, labeler: str = "masked", tokenizer=None, formatter: str = "special-tokens", **options
) -> Pipeline:
    encoder = prepare_tokenizer(tokenizer or bloom_tokenizer(), make_formatter(formatter), formatter)
    settings = {"labeler": [labeler, options], "formatter": formatter}
    return Pipeline(encoder, manager.labelers.build(labeler, options, encoder), labeler, settings)


@pytest.fixture
def data(tmp_path):
    def write(count: int = 60, name: str = "data.jsonl", answer: str = "perro"):
        path = tmp_path / name
        with open(path, "w", encoding="utf-8") as file:
            for n in range(count):
                said = "" if n % 10 == 3 else f"{answer} {'x' * (n % 5)}"
                messages = [{"role": "user", "content": f"dog {n}?"}, {"role": "assistant", "content": said}]
                file.write(json.dumps({"id": f"row {n}", "messages": messages}) + "\n")
        return path

    return write


def entries(tmp_path) -> set[str]:
    return {folder.name for folder in (tmp_path / "cache/prepared").iterdir()}


@pytest.mark.parametrize("labeler", ["copy", "masked", "trl"])
def test_a_large_file_gives_what_a_small_one_does(manager, data, labeler):
    pipeline, paths = make_pipeline(manager, labeler), [data(), data(25, "more.jsonl", "gato")]
    rows = [row for path in paths for row in read_transcripts(path)]
    wanted = prepare(rows, pipeline.encoder, pipeline.labeler, labeler_name=labeler)
    for _ in ("written", "read"):
        made = prepare_data(paths, pipeline)
        assert list(made.examples) == list(wanted.examples)
        assert made.examples.lengths.tolist() == [len(example.input_ids) for example in wanted.examples]
        assert made.examples.trained.tolist() == [example.trained_tokens for example in wanted.examples]
        assert made.skipped == wanted.skipped and len(made.skipped) == 9
        assert (made.rows, made.expanded_rows, made.findings) == (wanted.rows, wanted.expanded_rows, wanted.findings)


def test_it_is_done_once(data, pipeline, tmp_path, monkeypatch):
    path = data()
    first = list(prepare_data([path], pipeline).examples)
    monkeypatch.setattr(room, "_write", lambda *words: pytest.fail("prepared again"))
    assert list(prepare_data([path], pipeline).examples) == first


def test_another_length_needs_no_new_preparation(data, pipeline, monkeypatch):
    path = data()
    whole = prepare_data([path], pipeline).examples
    monkeypatch.setattr(room, "_write", lambda *words: pytest.fail("prepared again"))
    longest = int(whole.lengths.max())
    cut = prepare_data([path], pipeline, max_length=longest - 2, overlong="truncate")
    dropped = prepare_data([path], pipeline, max_length=longest - 2, overlong="drop")
    assert cut.truncated == len(whole) - len(dropped.examples) > 0
    assert cut.trained_rows == len(cut.examples) == len(whole)
    assert max(len(example.input_ids) for example in cut.examples) == longest - 2
    for short, long in zip(cut.examples, whole, strict=True):
        assert short.labels == long.labels[: longest - 2] and short.input_ids == long.input_ids[: longest - 2]
    assert dropped.rows == dropped.trained_rows + len(dropped.skipped)
    assert {row.code for row in dropped.skipped} == {"empty-answer", "overlong"}
    with pytest.raises(DistillError, match=r"the longest: .*data.jsonl:"):
        prepare_data([path], pipeline, max_length=longest - 1)


def test_whatever_decides_makes_another_entry(manager, data, tmp_path, monkeypatch):
    path = data()

    def changed(why: str, pipeline: Pipeline, paths=(path,)) -> None:
        known = entries(tmp_path) if (tmp_path / "cache/prepared").exists() else set()
        prepare_data(paths, pipeline)
        assert len(entries(tmp_path) - known) == 1, why

    changed("first", make_pipeline(manager))
    changed("labeler", make_pipeline(manager, "copy"))
    changed("option", make_pipeline(manager, "trl", end_of_turn="false"))
    changed("format", make_pipeline(manager, formatter="chat-template"))
    changed("tokenizer", make_pipeline(manager, tokenizer=TOKENIZERS["bare"]()))
    template = bloom_tokenizer()
    template.chat_template = "{% for m in messages %}{{ m['role'] + m['content'] + eos_token }}{% endfor %}"
    changed("template", make_pipeline(manager, tokenizer=template, formatter="chat-template"))
    changed("order of files", make_pipeline(manager), [data(9, "b.jsonl"), path])
    path.write_text(path.read_text().replace("dog 1?", "dog 0?"))
    changed("data", make_pipeline(manager))
    monkeypatch.setattr(room, "_code_of", lambda thing: "edited")
    changed("code", make_pipeline(manager))


def test_an_edited_plugin_is_prepared_anew(manager, data, tmp_path):
    import importlib.util
    import sys

    source, names = tmp_path / "my_labels.py", []
    for text in ("labels = list(encoded.input_ids)", "labels = [-100, *encoded.input_ids[1:]]"):
        source.write_text(f"class Mine:\n    def label(self, encoded):\n        {text}\n        return labels\n")
        spec = importlib.util.spec_from_file_location("my_labels", source)
        sys.modules["my_labels"] = module = importlib.util.module_from_spec(spec)
        exec(compile(source.read_text(), str(source), "exec"), module.__dict__)
        pipeline = Pipeline(make_pipeline(manager).encoder, module.Mine(), "mine")
        names.append(prepare_data([data()], pipeline).examples[0].labels[0])
    assert names[0] != -100 and names[1] == -100
    del sys.modules["my_labels"]


def test_the_cache_does_not_grow_for_ever(manager, data, tmp_path, pipeline, monkeypatch):
    monkeypatch.setattr(room, "_KEPT", 2)
    for n in range(4):
        prepare_data([data(5 + n)], pipeline)
    assert len(entries(tmp_path)) == 2


def test_an_interrupted_preparation_leaves_nothing(data, pipeline, tmp_path, monkeypatch):
    def stop(*words):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "map_chunks", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_data([data()], pipeline)
    assert list((tmp_path / "cache/prepared").iterdir()) == []


@pytest.mark.parametrize("cores", [1, 2])
def test_a_bad_row_is_named_from_wherever_it_is_read(data, pipeline, monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    path = data()
    with open(path, "a") as file:
        file.write('{"messages": [{"role": "wizard", "content": "x"}]}\n')
    with pytest.raises(DataError, match=r"data.jsonl:61: message 0 has the unknown role 'wizard'") as caught:
        prepare_data([path], pipeline)
    assert "the roles are" in caught.value.hint


def test_a_failing_labeler_is_blamed_across_processes(data, pipeline):
    class Broken:
        def label(self, encoded):
            raise RuntimeError("lost")

    with pytest.raises(PluginError, match=r"labeler 'broken' failed on .*data.jsonl:1: RuntimeError: lost"):
        prepare_data([data()], Pipeline(pipeline.encoder, Broken(), "broken"))


def test_a_killed_process_is_one_clear_error(data, pipeline):
    main = os.getpid()

    class Deadly:
        def label(self, encoded):
            if os.getpid() != main:
                os.kill(os.getpid(), 9)
            return list(encoded.input_ids)

    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one core: no other process")
    with pytest.raises(DistillError, match="a process that prepared rows died"):
        prepare_data([data()], Pipeline(pipeline.encoder, Deadly(), "deadly"))


def test_a_pipe_is_read_once_and_not_found_again(data, pipeline, tmp_path):
    pipe, text = tmp_path / "pipe", data().read_text()
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    made = prepare_data([pipe], pipeline)
    writer.join()
    assert made.rows == 60


def test_an_empty_file_is_an_error(data, pipeline, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        prepare_data([data(), empty], pipeline)


def test_examples_are_a_sequence_and_a_data_set(data, pipeline):
    examples = prepare_data([data()], pipeline).examples
    assert examples[-1] == examples[len(examples) - 1] and examples[1:3] == [examples[1], examples[2]]
    with pytest.raises(IndexError):
        examples[len(examples)]
    rows = examples.dataset()
    assert rows.column_names == ["input_ids", "labels"] and rows.cache_files
    assert [row["labels"] for row in rows] == [example.labels for example in examples]
    few = examples.select(examples.lengths.argsort()[:4])
    assert few.dataset()["input_ids"][:] == [example.input_ids for example in few]
    copied = Examples.of(list(few))
    assert list(copied) == list(few) and copied.trained.tolist() == few.trained.tolist()
    assert copied.dataset()[0]["input_ids"] == few[0].input_ids
    assert len(Examples.of([])) == 0
