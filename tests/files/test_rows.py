"""Files of rows in any format: the same rows come out, and what is broken is named with its line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import DataError
from distill.files.rows import looks_like_table, open_rows, rows_of

ROWS = [
    {"prompt": "dog, \u201cperro\u201d?\nplease", "completion": "s\u00ed", "messages": None},
    {"prompt": None, "completion": None, "messages": [{"role": "user", "content": "q"}]},
]
COLUMNS = ("prompt", "completion", "messages")


def as_csv(delimiter: str) -> bytes:
    """The rows as a spreadsheet saves them."""
    lines = [delimiter.join(COLUMNS)]
    for row in ROWS:
        cells = [row[name] if not isinstance(row[name], list) else json.dumps(row[name]) for name in COLUMNS]
        lines.append(delimiter.join('"' + cell.replace('"', '""') + '"' if cell else "" for cell in cells))
    return "\ufeff".encode() + "\r\n".join(lines).encode()


def as_parquet() -> bytes:
    """The rows as a table."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FILES = {
    "rows.jsonl": JSONL,
    "rows.json": json.dumps(ROWS).encode(),
    "pretty.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "rows.csv": as_csv(","),
    "excel.csv": as_csv(";"),
    "rows.tsv": as_csv("\t"),
    "rows.parquet": as_parquet(),
    "rows.jsonl.gz": gzip.compress(JSONL),
    "rows.csv.gz": gzip.compress(as_csv(",")),
    "rows.parquet.gz": gzip.compress(as_parquet()),
    "rows.jsonl.bz2": bz2.compress(JSONL),
    "rows.jsonl.xz": lzma.compress(JSONL),
    "no-suffix": gzip.compress(JSONL),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_come_out_of_every_format(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert [row for _, row in open_rows(path)] == ROWS
    assert {source.file for source, _ in open_rows(path)} == {str(path)} or name == "rows.json"


def test_zstd_is_read(tmp_path):
    path = tmp_path / "rows.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(JSONL)
    assert [row for _, row in open_rows(path)] == ROWS


def test_a_row_of_a_table_has_its_line_and_plain_values(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('prompt,messages\n"two\nlines",\n,not json\n')
    assert [(source.line, row) for source, row in open_rows(path)] == [
        (2, {"prompt": "two\nlines", "messages": None}),
        (4, {"prompt": None, "messages": "not json"}),
    ]
    rows = [{"tools": [{"a": {"x": 1}}, {"a": {"y": 2}}], "at": datetime(2026, 1, 2), "score": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    ((source, row),) = open_rows(tmp_path / "f.parquet")
    assert row == {"tools": [{"a": {"x": 1}}, {"a": {"y": 2}}], "at": "2026-01-02T00:00:00", "score": None}
    assert source.line == 1


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("f.csv", b"a,b\n1,2\n1,2,3\n", "f.csv:3: 3 cells, but 2 columns"),
        ("f.csv", b"a,a\n1,2\n", "f.csv:1: the column 'a' appears twice"),
        ("f.csv", b'a,b\n"x" y,2\n', "f.csv:2: "),
        ("f.csv", b"a,b\nx,\xff\n", "f.csv:2: "),
        ("f.txt", b"prompt,completion\ndog?,perro\n", "it looks like CSV"),
        ("f.txt", b"dog?\n", "is text, not a file of rows"),
        ("f.jsonl", "{}".encode("utf-16"), "UTF-16"),
        ("f.parquet", as_parquet()[:-8], "f.parquet"),
        ("f.jsonl.gz", gzip.compress(JSONL)[:-9], "damaged"),
        ("f.jsonl.xz", lzma.compress(JSONL)[:-9], "damaged"),
    ],
)
def test_what_is_broken_is_named(name, data, words, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(open_rows(tmp_path / name))
    assert words in caught.value.message


def test_a_binary_column_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"image": [b"png"]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"f.parquet:1: column 'image' holds binary data"):
        list(open_rows(tmp_path / "f.parquet"))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"prompt,id\nx,1\n", "CSV"),
        (b'"id";"prompt"\n', "CSV"),
        (b"question\tanswer\n", "TSV"),
        (b"What is the prompt, please?\n", None),
        (b"dog?\n", None),
    ],
)
def test_a_table_is_told_from_prompts_by_its_header(head, kind):
    assert looks_like_table(head) == kind


def read(text: bytes | str):
    data = text.encode() if isinstance(text, str) else text
    return [(str(source), row) for source, row in rows_of(io.BytesIO(data), "f.json")]


def test_one_array_is_read_as_its_rows_and_each_has_a_place_of_its_own():
    rows = [{"a": "],{\n"}, {"b": [1]}, {"c": 1}]
    assert [row for _, row in read(json.dumps(rows))] == rows
    assert [place for place, _ in read(json.dumps(rows))] == ["f.json:1", "f.json[2]:1", "f.json[3]:1"]
    assert [place for place, _ in read("\ufeff \n" + json.dumps(rows, indent=1))] == [
        "f.json:3",
        "f.json:6",
        "f.json:11",
    ]
    assert read("[]") == read(" [ \n ] \n") == read("") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}', "f.json:1: no comma"),
        ('[{"a": 1},\n', "f.json:2: Expecting"),
        ('[{"a": 1}\n{"b": 1}]', "f.json:1: no comma after element 1"),
        ('[\n{"a": 1},\n 5]', "f.json:3: element 2 of the array is not an object"),
        ('[{"a": NaN}]', "f.json:1: NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"a": 1}] {"b": 1}', "more text after the array"),
        (b'[\n{"a": "\xff"}]', "f.json:2: "),
        (b"PAR1\x15", "Parquet"),
        (b"\x1f\x8b\x08", "the compressed file is damaged"),
        (b"PK\x03\x04", "a zip archive"),
        ('{\n "a": 1}\n{\n', "f.json:4: Expecting"),
    ],
)
def test_a_broken_array_is_named(text, words):
    with pytest.raises(DataError) as caught:
        read(text)
    assert words in caught.value.message
