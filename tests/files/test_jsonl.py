"""JSONL: what is written is read again, a torn tail is no loss, and errors name file and line."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import DataError, DistillError
from distill.files.jsonl import Appender, dumps, read_rows
from distill.files.text import clean_surrogates

ROWS = [{"id": "a", "text": "plain"}, {"id": "b", "text": "é\u2028\u2029\x85 😀 \\n\n"}]

# What JSON can hold: any text but halves of surrogate pairs, which `clean_surrogates` deals with.
text = st.text(st.characters(exclude_categories=("Cs",)))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
json_rows = st.dictionaries(text, json_values, max_size=5)


def rows_of(path):
    return [row for _, row in read_rows(path)]


@settings(max_examples=60, deadline=None)
@given(st.lists(json_rows, max_size=5))
def test_rows_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    with Appender(path) as appender:
        for row in rows:
            appender.append(row)
    assert rows_of(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)
    assert [source.line for source, _ in read_rows(path)] == list(range(1, len(rows) + 1))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=("Cs", "L", "So"))))
def test_cleaned_text_can_be_written_and_is_changed_only_where_it_must(value):
    cleaned = clean_surrogates({"a": [value], value: 1})
    json.loads(dumps(cleaned).encode())
    try:
        value.encode()
    except UnicodeEncodeError:
        assert "\ufffd" in cleaned["a"][0] or len(cleaned["a"][0]) < len(value)  # two halves may make a pair
    else:
        assert cleaned == {"a": [value], value: 1}


def test_half_a_pair_and_two_halves():
    assert clean_surrogates("a\ud83db") == "a\ufffdb"
    assert clean_surrogates("\ud83d\ude00") == "😀"
    assert clean_surrogates({"x": ("\udc00", 1, None, True)}) == {"x": ["\ufffd", 1, None, True]}


@pytest.mark.parametrize("last", [ROWS[1], {"id": "c", "text": "x" * 200}])
def test_a_tail_torn_at_any_byte_is_recovered(tmp_path, last):
    """A kill may stop a write anywhere: whole rows stay, the rest goes to quarantine, new rows are never glued."""
    whole = dumps(ROWS[0]).encode() + b"\n"
    line = dumps(last).encode() + b"\n"
    for cut in range(len(line) + 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(whole + line[:cut])
        with Appender(path) as appender:
            appender.append({"id": "new"})
        survived = cut >= len(line) - 1  # only the newline is missing, or nothing
        assert rows_of(path) == [ROWS[0], *([last] if survived else []), {"id": "new"}]
        quarantine = tmp_path / f"{cut}.jsonl.quarantine"
        assert appender.quarantined == (0 if survived else cut)
        assert quarantine.exists() == (0 < cut < len(line) - 1)
        if quarantine.exists():
            assert quarantine.read_bytes() == line[:cut] + b"\n"


@pytest.mark.parametrize("tail", [b"\0\0\0", b"\0\n", b"garbage\n", b"[1]\n", b'{"a": \xff}\n', b"[" * 9999])
def test_a_last_line_that_is_no_row_is_put_aside(tmp_path, tail):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 1}\n' + tail)
    with Appender(path) as appender:
        appender.append({"id": 2})
    assert rows_of(path) == [{"id": 1}, {"id": 2}]
    assert tail.strip(b"\n") in (tmp_path / "x.jsonl.quarantine").read_bytes()


def test_a_last_line_longer_than_a_block(tmp_path):
    path = tmp_path / "x.jsonl"
    long = dumps({"id": "y" * 300_000}).encode()
    path.write_bytes(b'{"id": 1}\n' + long[:-1])
    with Appender(path) as appender:
        assert appender.quarantined == len(long) - 1
    assert rows_of(path) == [{"id": 1}]


def test_blank_lines_do_not_count(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 1}\n\n{"id": 2}\n\n')
    with Appender(path) as appender:
        appender.append({"id": 3})
    assert [(source.line, row["id"]) for source, row in read_rows(path)] == [(1, 1), (3, 2), (5, 3)]


def test_one_writer_a_file(tmp_path):
    path = tmp_path / "x.jsonl"
    with Appender(path), pytest.raises(DistillError, match="another process is writing"):
        Appender(path)
    Appender(path).close()


def test_appending_from_many_processes_one_after_the_other_loses_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    code = (
        "import sys, time; from distill.files.jsonl import Appender; from distill.errors import DistillError\n"
        "while True:\n"
        "    try:\n"
        "        with Appender(sys.argv[1]) as a:\n"
        "            for n in range(100): a.append({'id': sys.argv[2], 'n': n, 'text': 'x' * 5000})\n"
        "        break\n"
        "    except DistillError: time.sleep(0.01)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(3)]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    assert len({(row["id"], row["n"]) for row in rows_of(path)}) == 300 == len(rows_of(path))


def test_a_full_disk_leaves_whole_rows(tmp_path):
    """A limit on the file's size stands for the disk: the write that does not fit leaves nothing behind."""
    path = tmp_path / "x.jsonl"
    code = (
        "import sys, signal; from distill.files.jsonl import Appender; from distill.errors import DistillError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with Appender(sys.argv[1]) as a:\n"
        "    try:\n"
        "        for n in range(1000): a.append({'id': n, 'text': 'x' * 777})\n"
        "    except DistillError as e: print(e.message, e.hint)\n"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run([sys.executable, "-c", code, path], preexec_fn=limit, capture_output=True, text=True)
    assert "File too large" in done.stdout and "safe" in done.stdout, done.stderr
    rows = rows_of(path)
    assert [row["id"] for row in rows] == list(range(len(rows))) and len(rows) == 12


def test_a_row_that_is_no_json_writes_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    with Appender(path) as appender:
        for row in ({"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud83d"}):
            with pytest.raises((ValueError, TypeError)):
                appender.append(row)
    assert path.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DistillError, match="Permission denied"):
        Appender(tmp_path / "x.jsonl")


def test_a_folder_or_a_missing_folder(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "x.jsonl"):
        with pytest.raises(DistillError, match=str(path)):
            Appender(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "Expecting"),
        (b"[1]", "not a JSON object"),
        (b"null", "JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1} {"a": 2}', "Extra data"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": ' + b"[" * 100_000, "nested"),
    ],
)
def test_errors_name_file_and_line(tmp_path, line, words):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"fine": 1}\n\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert caught.value.message.startswith(f"{path}:3: ") and words in caught.value.message


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        rows_of(tmp_path / "x.jsonl")


def test_dates_and_big_numbers_stay_as_they_are(tmp_path):
    path = tmp_path / "x.jsonl"
    row = {"created": "2024-01-01T00:00:00Z", "n": 12345678901234567890, "f": 0.1}
    with Appender(path) as appender:
        appender.append(row)
    assert rows_of(path) == [row]


def test_several_lines_of_garbage_are_moved_away_in_one_start(tmp_path):
    path, good = tmp_path / "x.jsonl", b'{"a": 1}\n'
    garbage = b"\0" * 100 + b"\n{\x80\n" + b"\0" * 10
    path.write_bytes(good + garbage)
    with Appender(path) as appender:
        assert appender.quarantined == len(garbage)
        appender.append({"a": 2})
    assert path.read_bytes() == good + b'{"a": 2}\n'


def test_rows_are_synced_in_groups(tmp_path, monkeypatch):
    """A power cut costs no row that is older than a second when the next one comes; a slow disk is spared."""
    clock, synced = [100.0], []

    def fsync(fd):
        synced.append(clock[0])
        clock[0] += 0.5  # a slow disk

    monkeypatch.setattr("distill.files.jsonl.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("distill.files.jsonl.os.fsync", fsync)
    with Appender(tmp_path / "x.jsonl") as appender:
        for _ in range(250):
            appender.append({})
            clock[0] += 0.1
        assert synced == pytest.approx([101.0, 111.5, 122.0], abs=0.3)
    assert len(synced) == 4, "and once at the end"


def failing(monkeypatch, name, *numbers):
    """Let calls of an `os` function fail, once for each number, None: it works."""
    real, left = getattr(os, name), list(numbers)

    def call(*args):
        if left and (number := left.pop(0)) is not None:
            raise OSError(number, os.strerror(number))
        return real(*args)

    monkeypatch.setattr(os, name, call)


def test_a_row_that_could_not_be_written_is_written_later(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    with Appender(path) as appender:
        failing(monkeypatch, "write", errno.ENOSPC)
        with pytest.raises(DistillError, match="No space left on device"):
            appender.append({"id": 1})
        appender.append({"id": 2})
        failing(monkeypatch, "write", errno.EIO)
        with pytest.raises(DistillError, match="Input/output error"):
            appender.append({"id": 3})
    assert rows_of(path) == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_the_rows_that_are_lost_in_the_end_are_counted(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    appender = Appender(path)
    appender.append({"id": 0})
    failing(monkeypatch, "write", *[errno.ENOSPC] * 9)
    for n in (1, 2):
        with pytest.raises(DistillError):
            appender.append({"id": n})
    with pytest.raises(DistillError, match="2 rows could not be written"):
        appender.close()
    assert rows_of(path) == [{"id": 0}]


def test_a_torn_write_that_cannot_be_cut_back_is_cut_back_before_the_next_row(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    with Appender(path) as appender:
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:4]))
        failing(monkeypatch, "write", None, errno.ENOSPC)
        failing(monkeypatch, "ftruncate", errno.EIO)
        with pytest.raises(DistillError):
            appender.append({"id": 1})
        assert path.read_bytes() == b'{"id'
        monkeypatch.setattr(os, "write", real)
        appender.append({"id": 2})
    assert rows_of(path) == [{"id": 1}, {"id": 2}]


def test_a_failed_sync_at_the_end_is_one_error(tmp_path, monkeypatch):
    appender = Appender(tmp_path / "x.jsonl")
    appender.append({"id": 1})
    failing(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(DistillError, match=r"x.jsonl: Input/output error"):
        appender.close()


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null", "-", tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(DistillError) as caught:
            Appender(path)
        assert caught.value.hint
