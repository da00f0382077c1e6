"""The form in which rows keep a teacher's log probabilities: small, exact, and read right however it came."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from distill.errors import DataError
from distill.soft_labels.rows import LogprobsOrigin, pack_logprobs, parse_logprobs, read_logprobs
from distill.types import Message, Transcript

ORIGIN = LogprobsOrigin(raw=True, temperature=1.0, top_p=1.0, tokenizer="abc", end_ids=(2,))


def test_what_is_packed_is_read_back():
    top = [[(7, -0.25), (9, -1.75)], [(5, -0.125), (4, -3.0)], [(2, -0.0625)]]
    row = pack_logprobs(
        ["Hi", b"\xf0\x9f", "</s>"], [-0.25, -3.0, -0.0625], ids=[7, 4, 2], top=top, k=2, end=1, origin=ORIGIN
    )
    read = parse_logprobs(json.loads(json.dumps(row)))
    assert read.tokens == (b"Hi", b"\xf0\x9f", b"</s>") and read.end == 1 and read.origin == ORIGIN
    assert read.logprobs.tolist() == [-0.25, -3.0, -0.0625] and read.ids.tolist() == [7, 4, 2]
    assert read.top_ids.tolist() == [[7, 9], [5, 4], [2, -1]] and read.vocabulary is None
    np.testing.assert_array_equal(read.top_logprobs, [[-0.25, -1.75], [-0.125, -3.0], [-0.0625, np.nan]])


def test_candidates_without_ids_are_kept_by_their_bytes():
    top = [[("Hi", -0.5), (b"\xf0\x9f", -1.0)], [("!", -0.1), ("Hi", -2.5)]]
    read = parse_logprobs(pack_logprobs(["Hi", "!"], [-0.5, -0.1], top=top, k=2))
    assert read.ids is None and read.vocabulary == (b"Hi", b"\xf0\x9f", b"!")
    assert read.top_ids.tolist() == [[0, 1], [2, 0]]


def test_what_servers_send_is_read_right():
    """-9999 and -inf are not log probabilities; K + 1 entries, doubles and any order are K likeliest, each once."""
    top = [
        [(5, -3.0), (7, -0.5), (9, -1.0)],  # the written token after the K likeliest
        [(5, -9999.0), (7, -math.inf), (9, -1.0)],
        [(7, -1.0), (7, -0.5)],
        [],
    ]
    row = pack_logprobs("abcd", [-3.0, -9999.0, -math.inf, None], ids=[5, 7, 7, 8], top=top, k=2)
    read = parse_logprobs(row)
    assert read.top_ids.tolist() == [[7, 9], [9, -1], [7, -1], [-1, -1]]
    assert read.logprobs[0] == -3.0 and np.isnan(read.logprobs[1:]).all()
    assert row["logprobs"] == [-3.0, None, None, None]


def test_the_form_of_the_first_release_is_read():
    kept = [["Hi", -0.1235, [["Hi", -0.1235], ["Yo", -2]]], [[240, 159], -9999.0, []], ["!", None, []]]
    read = parse_logprobs(kept)
    assert read.tokens == (b"Hi", b"\xf0\x9f", b"!") and read.vocabulary == (b"Hi", b"Yo")
    assert read.top_ids.tolist() == [[0, 1], [-1, -1], [-1, -1]] and np.isnan(read.logprobs[1:]).all()


def test_twenty_candidates_with_ids_take_170_bytes_per_token():
    rng = np.random.default_rng(0)
    words = [" the", " distribution", "ing", ",", " of", "\n", "Hello", " to"]
    tokens = [words[n] for n in rng.integers(len(words), size=400)]
    top = [list(zip(rng.integers(150_000, size=20).tolist(), (-rng.exponential(3, 20)).tolist(), strict=True))] * 400
    row = pack_logprobs(
        tokens, [-1.2345] * 400, ids=rng.integers(150_000, size=400).tolist(), top=top, k=20, origin=ORIGIN
    )
    assert len(json.dumps(row, ensure_ascii=False).encode()) / 400 <= 170


def test_answers_are_matched_from_the_end():
    """An assistant's messages in a prompt were not asked for, and have no log probabilities."""
    messages = [Message("user", "a"), Message("assistant", "given"), Message("user", "b"), Message("assistant", "Hi")]
    row = pack_logprobs(["Hi"], [-0.5])
    assert list(read_logprobs(Transcript("t", messages, metadata={"logprobs": [row]}))) == [3]
    assert list(read_logprobs(Transcript("t", messages, metadata={"logprobs": [None, row]}))) == [3]
    assert read_logprobs(Transcript("t", messages)) == {}
    with pytest.raises(DataError, match="3 answers, the conversation 2"):
        read_logprobs(Transcript("t", messages, metadata={"logprobs": [row] * 3}))


@pytest.mark.parametrize(
    "damage",
    [
        {"logprobs": [-0.5]},
        {"ids": [1]},
        {"ids": [1, 2, 3]},
        {"tokens": None},
        {"tokens": [1, 2]},
        {"logprobs": ["a", "b"]},
        {"logprobs": [0.5, -0.5]},
        {"end": 3},
        {"top": {"k": 2, "ids": "AAAA", "logprobs": "AAA="}},
        {"top": {"k": 2, "ids": "!", "logprobs": "AAA="}},
        {"top": 7},
        {"vocabulary": ["a"]},
    ],
)
def test_a_malformed_row_is_refused(damage):
    row = pack_logprobs("ab", [-0.5, -0.5], top=[[("a", -0.5), ("b", -1)]] * 2, k=2)
    with pytest.raises(DataError, match="malformed"):
        parse_logprobs({**row, **damage})
    for other in ("text", 7, [["a"]], [7]):
        with pytest.raises(DataError):
            parse_logprobs(other)


def test_columns_of_different_length_are_not_packed():
    with pytest.raises(ValueError, match="one entry per token"):
        pack_logprobs("ab", [-0.5])
