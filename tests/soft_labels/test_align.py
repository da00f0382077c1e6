"""Alignment by bytes: over random texts and cuts, no token is ever laid over text that is not its own."""

from __future__ import annotations

import random

import numpy as np

from distill.soft_labels.align import CHUNK, EXACT, NONE, Zone, align, find_zones, map_candidates
from distill.soft_labels.align import mend_pieces_of_characters as mend

PIECES = ["a", " b", "é", "👩‍👧", " ", "  ", "\n", "中", "e\u0301", "xxxxxxx", " the", "🇪🇸", "\u200d", "<think>"]


def cuts(rng: random.Random, text: bytes, empty: float = 0.0) -> list[bytes]:
    """Cut bytes anywhere, within characters too; some of the tokens may be empty, as servers send them."""
    tokens, at = [], 0
    while at < len(text):
        size = rng.choice([1, 1, 2, 3, 5, 8])
        if rng.random() < empty:
            tokens.append(b"")
        tokens.append(text[at : at + size])
        at += size
    return tokens


def test_ten_thousand_random_texts():
    """Shares sum to 1, every exact token has the teacher's bytes at the teacher's place, every chunk its sum."""
    rng = random.Random(0)
    kinds = np.zeros(3, np.int64)
    for _ in range(10_000):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 25)))
        octets = text.encode()
        teacher, student = cuts(rng, octets, empty=0.03), cuts(rng, octets)
        logprobs = np.array([-rng.random() for _ in teacher], np.float32)
        zones = find_zones([(text, True)], octets)
        if zones is None:
            assert not text.strip()
            continue
        made = align(teacher, logprobs, student, zones)
        ends, own = np.cumsum([len(one) for one in teacher]), np.cumsum([0, *(len(one) for one in student)])
        common = {0, *ends.tolist()}
        covered = np.zeros(len(student), bool)
        for n, token in enumerate(student):
            if made.size[n]:
                first = n + 1 - made.size[n]
                assert own[first] in common and own[n + 1] in common
                assert not covered[first : n + 1].any()
                covered[first : n + 1] = True
                inside = [at for at in range(len(teacher)) if own[first] < ends[at] <= own[n + 1] and len(teacher[at])]
                if all(teacher):
                    assert abs(made.logprob[n] - logprobs[inside].sum()) < 1e-4
                assert made.kind[n] == EXACT or (made.kind[first : n + 1] == CHUNK).all()
            if made.kind[n] == EXACT:
                at = made.place[n]
                assert teacher[at] == token and ends[at] == own[n + 1] and made.size[n] == 1
                assert made.logprob[n] == logprobs[at]
        assert ((made.kind != NONE) == covered).all()
        counts = np.bincount(made.kind, minlength=3)
        assert counts.sum() == len(student)
        kinds += counts
    assert (kinds > 10_000).all(), kinds  # all three were there to be tested


def test_equal_tokens_are_all_exact():
    tokens = [b"Hello ", b"w\xc3", b"\xb6rld", b"!"]
    text = b"".join(tokens).decode()
    made = align(tokens, np.array([-1, -2, -3, -4], np.float32), tokens, find_zones([(text, True)], text.encode()))
    assert made.kind.tolist() == [EXACT] * 4 and made.place.tolist() == [0, 1, 2, 3]


def test_several_to_several_is_a_chunk():
    made = align([b"ab", b"c", b"d"], np.array([-1, -2, -4], np.float32), [b"a", b"bc", b"d"], [Zone(0, 4, 0)])
    assert made.kind.tolist() == [CHUNK, CHUNK, EXACT]
    assert made.size.tolist() == [0, 2, 1] and made.logprob[1:].tolist() == [-3, -4]


def test_a_chunk_with_an_unknown_part_has_no_teacher():
    made = align([b"a", b"b", b"c"], np.array([-1, np.nan, np.nan], np.float32), [b"ab", b"c"], [Zone(0, 3, 0)])
    assert made.kind.tolist() == [NONE, EXACT] and made.size.tolist() == [0, 1] and np.isnan(made.logprob[1])


def test_stripped_spaces_have_no_teacher():
    """A server takes the space off the answer's beginning: its first token is no longer the teacher's."""
    [zone] = find_zones([("Hello there", True)], b" Hello there\n")
    made = align([b" Hello", b" there", b"\n"], np.array([-1, -2, -3], np.float32), [b"Hello", b" there"], [zone])
    assert made.kind.tolist() == [NONE, EXACT]


def test_other_texts_are_not_found():
    for teacher in ("Hello", "ello there", "Hello there. Hello there", "No. Hello there", "Hello there!", ""):
        assert find_zones([("Hello there", True)], teacher.encode()) is None, teacher


def test_reasoning_is_found_by_its_span():
    pieces = [("<think>\n", False), ("Hm.", True), ("\n</think>\n\n", False), ("Hi.", True)]
    said = b"<think>Hm.</think>\nHi."
    zones = find_zones(pieces, said, reasoning=b"Hm.")
    student = "".join(text for text, _ in pieces).encode()
    assert [student[zone.start : zone.end] for zone in zones] == [b"Hm.", b"Hi."]
    assert [said[zone.start + zone.shift : zone.end + zone.shift] for zone in zones] == [b"Hm.", b"Hi."]
    [only] = find_zones([("Hi.", True)], said, reasoning=b"Hm.")  # the format leaves the reasoning out
    assert only.shift == said.rindex(b"Hi.")
    assert find_zones([("Hi.", True)], b"<think>\n\n</think>\n\nHi.") is not None  # an empty one is dropped by servers


def test_a_tool_call_that_is_written_in_another_way_has_no_teacher():
    pieces = [("Let me see. ", True), ("<call>", False), ('{"city": "Rome"}', True), ("</call>", False)]
    said = b'Let me see. <tool_call>{"city":"Rome"}</tool_call>'
    [zone] = find_zones(pieces, said, calls=True)
    assert (zone.start, zone.end, zone.shift) == (0, 11, 0)


def test_pieces_of_characters_that_a_server_wrote_as_replacements():
    bad = "\ufffd".encode()
    assert mend([b"Hi ", bad, bad, b" ok", bad], "Hi 👩 ok…".encode()) == [
        b"Hi ",
        b"",
        "👩".encode(),
        b" ok",
        "…".encode(),
    ]
    assert mend([b"a", bad], "a\ufffd".encode()) == [b"a", bad]  # the answer really has one
    assert mend([b"b", bad, b"c"], b"another text") == [b"b", bad, b"c"]


def test_candidates_are_mapped_and_what_meets_is_added_up():
    table = np.array([10, 11, -1, 10], np.int32)
    ids, values = map_candidates(np.array([[0, 2, 3], [1, -1, 9]]), table, np.log([[0.5, 0.2, 0.25], [0.7, 0.1, 0.1]]))
    assert ids.tolist() == [[10, -1, -1], [11, -1, -1]]
    np.testing.assert_allclose(np.exp(values[:, 0]), [0.75, 0.7], rtol=1e-6)
    assert np.isnan(values[ids < 0]).all()
