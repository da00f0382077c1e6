"""A row that is not as it was written is noticed; rows without a checksum, and other writers' JSON, are fine."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.transcripts.checksum import sealed, without_checksum
from distill.types import Source

HERE = Source("rows.jsonl", 1)
ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "Wie spät? 東 \u2028 😀"}],
    "metadata": {"x": [0.1, -1e-7, None]},
}


def intact(row: dict, source: Source = HERE) -> bool:
    bare, is_intact = without_checksum(row, source)
    assert "checksum" not in bare
    return is_intact


def test_a_row_as_it_was_written_is_intact_whatever_the_spaces():
    row = json.loads(sealed(ROW))
    assert list(row)[-1] == "checksum" and {**ROW, "checksum": row["checksum"]} == row
    assert intact(row) and intact(json.loads(json.dumps(row, indent=2, ensure_ascii=True)))
    own = {**ROW, "checksum": "a column of the user's own"}
    assert intact(ROW) and without_checksum(own, HERE) == (own, True)


@given(st.data())
def test_every_flipped_bit_that_is_still_json_is_noticed(data):
    line = bytearray(sealed(ROW))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        row = json.loads(line)
    except ValueError:
        return  # the reader names the line
    if not isinstance(row, dict) or not isinstance(row.get("checksum"), str) or len(row["checksum"]) != 8:
        return
    is_hex = all(char in "0123456789abcdef" for char in row["checksum"])
    assert not is_hex or row == json.loads(sealed(ROW)) or not intact(row)


def test_rows_of_tables_and_objects_are_not_compared():
    row = {**json.loads(sealed(ROW)), "id": "b"}
    assert not intact(row)
    for file in ("<list>", "<Dataset>", "hub:a/b", "rows.parquet", "rows.csv"):
        assert intact(row, Source(file, 1))


@pytest.mark.parametrize("how", ["edit", "accept"])
def test_check_tells_of_an_edited_row_until_its_checksum_is_gone(tmp_path, bloom, manager, how):
    from distill.dataset.check import check
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.settings import DataSettings

    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = json.loads(sealed({"id": "1", "messages": chat, "tools": [], "metadata": {}}))
    row["messages"][1]["content"] = "c"
    if how == "accept":
        del row["checksum"]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    report = check(path, make_pipeline(DataSettings(str(bloom)), manager))
    found = [finding.rows for finding in report.findings if finding.code == "edited-row"]
    assert report.ok and found == ([[(f"{path}:1", "")]] if how == "edit" else [])
