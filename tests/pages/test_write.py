"""Pages are written whole, and over nothing but pages."""

from __future__ import annotations

import pytest
from html_page import Page

from distill.errors import DistillError, UsageError
from distill.pages import check_page_target, render_page, write_page


def page() -> str:
    return render_page("show", about={}, summary=_Nothing(), lengths=None, shown=0, rows=[])


class _Nothing:
    rows = skipped = median = 0
    lengths = trained = ()
    reasons = frequent = ()


def test_only_pages_of_distill_are_overwritten(tmp_path):
    data, foreign, ours = tmp_path / "data.jsonl", tmp_path / "foreign.html", tmp_path / "ours.html"
    data.write_text("{}\n")
    foreign.write_text("<!doctype html>\n<title>mine</title>")
    for path in (data, foreign):
        before = path.read_text()
        with pytest.raises(UsageError, match="refusing to overwrite"):
            write_page(path, page())
        assert path.read_text() == before
    write_page(ours, page())
    write_page(ours, iter(page().splitlines(keepends=True)))
    assert ours.read_text() == page()
    (tmp_path / "empty.html").touch()
    check_page_target(tmp_path / "empty.html")


def test_where_no_page_can_be_is_said(tmp_path):
    with pytest.raises(DistillError, match="Is a directory"):
        write_page(tmp_path, page())
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path}/no") as caught:
        write_page(tmp_path / "no" / "page.html", page())
    assert caught.value.hint == "make it first"


def test_a_page_that_breaks_off_leaves_the_old_one(tmp_path):
    target = tmp_path / "page.html"
    write_page(target, page())

    def broken():
        yield "<!doctype html>"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_page(target, broken())
    assert target.read_text() == page()


def test_every_page_forbids_what_it_does_not_need():
    made = Page(page())
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in page() and "img" not in made.tags
