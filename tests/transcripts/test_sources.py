"""Data as users have it: every kind of source gives the same conversations."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import datasets
import pandas
import pyarrow as pa
import pytest

from distill.errors import DataError, UsageError
from distill.transcripts.reader import read_transcripts
from distill.transcripts.sources import as_sources

ROWS = [
    {"messages": [{"role": "user", "content": "dog?"}, {"role": "assistant", "content": "Perro."}], "id": "1"},
    {"messages": [{"role": "user", "content": "cat?"}, {"role": "assistant", "content": "Gato."}], "id": "2"},
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def said(data):
    """The conversations' texts."""
    return [[message.content for message in one.messages] for one in read_transcripts(data)]


TEXTS = [["dog?", "Perro."], ["cat?", "Gato."]]


def test_every_kind_of_source_gives_the_same_conversations(path):
    for data in (
        path,
        str(path),
        ROWS,
        tuple(ROWS),
        list(read_transcripts(path)),
        datasets.Dataset.from_list(ROWS),
        pandas.DataFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        as_sources(path)[0],
    ):
        assert said(data) == TEXTS, data
        assert said([data, path]) == TEXTS * 2
        (source,) = as_sources(data)
        assert source.rereadable and len(source.digest()) == 64 and source.digest() == as_sources(data)[0].digest()


def test_rows_in_memory_have_a_place_and_a_digest_of_their_content():
    first, second = read_transcripts(ROWS)
    assert (str(first.source), str(second.source)) == ("<list>:1", "<list>:2")
    assert as_sources(ROWS)[0].digest() != as_sources(ROWS[::-1])[0].digest()


def test_a_table_that_gives_all_objects_the_same_fields_is_read_without_them():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    data = datasets.Dataset.from_list([{"messages": messages, "label": None}, *ROWS])
    first = next(iter(read_transcripts(data)))
    assert [len(message.tool_calls) for message in first.messages] == [0, 1] and not first.metadata


def test_standard_input_can_be_read_once(monkeypatch):
    stdin = io.BytesIO(json.dumps(ROWS).encode())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    (source,) = as_sources("-")
    assert said(source) == TEXTS and not source.rereadable and source.digest() != source.digest()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hub:owner/name", ("owner/name", None, "train")),
        ("hub:owner/name:test[:10]", ("owner/name", None, "test[:10]")),
        ("hub:owner/name/config:validation", ("owner/name", "config", "validation")),
    ],
)
def test_a_data_set_of_the_hub_is_loaded_when_it_is_read(name, asked, monkeypatch):
    calls = []

    def load(repository, config, split):
        calls.append((repository, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    (source,) = as_sources(name)
    assert not calls
    assert said(source) == said(source) == TEXTS and calls == [asked]
    assert str(next(iter(read_transcripts(source))).source) == f"{name}:1"


def test_what_cannot_be_read_is_named(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="rows cannot be read from int"):
        as_sources(7)
    with pytest.raises(UsageError, match="several splits"):
        as_sources(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)))
    with pytest.raises(UsageError, match="not a data set of the hub"):
        as_sources("hub:a/b/c/d")
    with pytest.raises(DataError, match="<list>:2: int, not a dict"):
        said([ROWS[0], 7])
    with pytest.raises(DataError, match=r"hub:owner/none: "):
        said("hub:owner/none")  # the tests are offline
    with pytest.raises(DataError, match=r"<list>:1: column 'image' holds binary data"):
        said([{"image": b"png"}])
    with pytest.raises(DataError, match="No such file"):
        said(tmp_path / "none.jsonl")
