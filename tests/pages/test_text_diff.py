"""Differences of texts, and untrusted text made visible."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from distill.pages.text_diff import difference, split_words
from distill.pages.visible import visible

TEXTS = st.lists(
    st.sampled_from(["a", "bc", " ", "\n", ",", "猫", "e\u0301", "لا", "👩\u200d👧", "\u202e"]), max_size=30
)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_difference_holds_the_whole_text(ours, theirs):
    text, reference = "".join(ours), "".join(theirs)
    assert "".join(split_words(text)) == text
    found = difference(text, reference)
    assert "".join(one.text for one in found if one.kind != "missing") == text
    assert all(one.kind == "same" for one in found) == (text == reference)
    assert not any(one.text[0] in "\u0301\u200d" for one in found), "a mark stays with its letter"


def test_scripts_survive_and_what_hides_is_seen():
    for text in ("می\u200cخواهم", "👩\u200d👧", "e\u0301", "10\u202f000\u00a0€", "נָ", "a\tb\nc"):
        assert str(visible(text)) == text
    assert "\\u202e" in visible("\u202eabc") and "\\u200b" in visible("a\u200bb") and "\\u200d" in visible("a\u200db")
    assert list(split_words("e\u0301a 猫猫, b")) == ["e\u0301a", " ", "猫", "猫", ",", " ", "b"]


def test_in_tokens_every_character_counts():
    assert visible("a\u200db\u00a0\n", tokens=True) == (
        'a<i class="odd">\\u200d</i>b<i class="odd">\\xa0</i><i class="odd">↵</i>\n'
    )
    assert visible("<a>", tokens=True) == visible("<a>") == "&lt;a&gt;"
