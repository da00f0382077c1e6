"""From rows to soft targets: what is right is trained, and every kind of damaged file is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from teacher_logprobs import logprobs_of, told

from distill import make_formatter
from distill.encode.tokenizer import prepare_tokenizer
from distill.soft_labels.targets import SoftLabeler, SoftShares
from distill.testing.tokenizers import TOKENIZERS, byte_bpe
from distill.types import IGNORE_INDEX

TEXT = "The quick brown fox jumps over the lazy dog. Ein Satz auf Deutsch, una frase en español: 0123456789 👩‍👧!"


@pytest.fixture(scope="module")
def encoder():
    return prepare_tokenizer(TOKENIZERS["bloom"](), make_formatter("special-tokens"), "special-tokens")


@pytest.fixture(scope="module")
def soft(encoder):
    return SoftLabeler(encoder)


@pytest.fixture
def make(encoder, soft, manager):
    labeler = manager.labelers.build("masked", {}, encoder)

    def make(transcript, labels=None):
        segments = encoder.segments(transcript.messages)
        encoded = encoder.encode(transcript.messages)
        labels = labels(encoded) if labels else labeler.label(encoded)
        found = []
        turns = {turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"}
        targets = soft.targets(transcript, turns, segments, encoded, labels, lambda *what: found.append(what))
        return targets, labels, [code for code, _ in found]

    return make


def damaged(row: dict, **columns) -> dict:
    return {**json.loads(json.dumps(row)), **columns}


def test_the_teachers_own_tokenizer_makes_all_tokens_exact(encoder, make):
    targets, labels, found = make(told(TEXT, logprobs_of(encoder.tokenizer, TEXT, stop=encoder.stop)))
    trained = np.array(labels) != IGNORE_INDEX
    assert not found and (targets.kind == trained).all() and targets.plain
    assert (targets.ids >= 0).any(1).all() and targets.ids.shape == (trained.sum(), 5)
    assert (np.exp(targets.logprobs).sum(1) < 1.001).all()
    shares = SoftShares()
    shares.count(labels, targets)
    assert shares.exact == shares.trained and shares.none == 0 and 0.5 < shares.mean_mass <= 1


def test_bytes_without_ids_give_the_same(encoder, make):
    with_ids, *_ = make(told(TEXT, logprobs_of(encoder.tokenizer, TEXT)))
    without, _, found = make(told(TEXT, logprobs_of(encoder.tokenizer, TEXT, with_ids=False)))
    assert not found
    np.testing.assert_array_equal(with_ids.kind, without.kind)
    for one, other, logs, other_logs in zip(
        with_ids.ids, without.ids, with_ids.logprobs, without.logprobs, strict=True
    ):
        told_there = {id: value for id, value in zip(one, logs, strict=True) if id >= 0}
        assert told_there == {id: value for id, value in zip(other, other_logs, strict=True) if id >= 0}


def test_an_end_without_logprobs_has_no_teacher(encoder, make):
    targets, labels, _ = make(told(TEXT, logprobs_of(encoder.tokenizer, TEXT)))
    trained = np.flatnonzero(np.array(labels) != IGNORE_INDEX)
    assert targets.kind[trained[-1]] == 0 and (targets.kind[trained[:-1]] == 1).all()


def test_the_teachers_end_of_turn_becomes_the_students(encoder, make):
    other = byte_bpe({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}, vocab_size=600)
    stop = other.eos_token_id
    row = logprobs_of(other, TEXT, stop=stop, with_ids=False)
    targets, labels, found = make(told(TEXT, row))
    assert not found
    last = np.flatnonzero(np.array(labels) != IGNORE_INDEX)[-1]
    assert targets.kind[last] == 1 and labels[last] == encoder.stop
    assert encoder.stop in targets.ids[-1]


def test_another_tokenizer_gives_chunks(encoder, make):
    other = byte_bpe({"eos_token": "<|end|>"}, vocab_size=400)
    targets, labels, found = make(told(TEXT, logprobs_of(other, TEXT)))
    shares = SoftShares()
    shares.count(labels, targets)
    assert not found and shares.chunk > 5
    assert shares.exact + shares.chunk + shares.none == shares.trained
    ends = np.flatnonzero(targets.size)
    assert np.isfinite(targets.logprob[ends]).all()
    assert ((targets.ids >= 0).sum(1) <= 1).all()  # of a tokenizer that is not at hand, only the written token is known


def test_a_chunk_that_is_not_trained_as_a_whole_has_no_teacher(encoder, make):
    other = byte_bpe({"eos_token": "<|end|>"}, vocab_size=400)

    def every_third(encoded):
        return [
            token if wrote and n % 3 else IGNORE_INDEX
            for n, (token, wrote) in enumerate(zip(encoded.input_ids, encoded.assistant_mask, strict=True))
        ]

    targets, labels, _ = make(told(TEXT, logprobs_of(other, TEXT)), every_third)
    for stop in np.flatnonzero(targets.size):
        assert all(label != IGNORE_INDEX for label in labels[stop + 1 - targets.size[stop] : stop + 1])
    assert (targets.kind[np.array(labels) == IGNORE_INDEX] == 0).all()


def test_damaged_files_are_refused(encoder, make):
    """Shifted by one token, of another text, of another tokenizer than it says, malformed: each by its code."""
    row = logprobs_of(encoder.tokenizer, TEXT, stop=encoder.stop)
    columns = ("tokens", "logprobs", "ids")
    shifted = {name: row[name][1:] + row[name][:1] for name in columns}
    late = {name: row[name][:1] + row[name][:-1] for name in columns}
    other_text = logprobs_of(encoder.tokenizer, "Another text altogether. " + TEXT[:40])
    pure = logprobs_of(encoder.tokenizer, TEXT, k=1)
    numbers = damaged(row, top={**row["top"], "logprobs": pure["top"]["logprobs"]})
    cases = {
        "logprobs-other-text": [
            other_text,
            damaged(pure, top=None, **{k: v[1:] for k, v in pure.items() if type(v) is list}),
        ],
        "logprobs-shifted": [
            damaged(row, logprobs=row["logprobs"][1:] + row["logprobs"][:1]),
            damaged(row, **shifted),
            damaged(row, **late),
        ],
        "logprobs-other-tokenizer": [damaged(row, top=None, ids=[(id + 7) % 500 for id in row["ids"]])],
        "logprobs-malformed": [damaged(row, ids=row["ids"][1:]), numbers, "text"],
    }
    for code, rows in cases.items():
        for n, bad in enumerate(rows):
            targets, _, found = make(told(TEXT, bad))
            assert targets is None and found == [code], (code, n, found)


def test_a_distribution_that_is_one_token_late_is_refused(encoder, make):
    """As a scorer that forgets to shift would write it: each number is in order, but they belong to the next place."""
    text = " ".join([TEXT] * 4)
    row = logprobs_of(encoder.tokenizer, text, k=5)
    next_one = logprobs_of(encoder.tokenizer, text, seed=1, k=5)
    targets, _, found = make(told(text, damaged(row, top=next_one["top"], logprobs=[-15.0] * len(row["ids"]))))
    assert targets is None and found == ["logprobs-shifted"]


def test_answers_that_were_not_sampled_plainly_are_said_to_be_so(encoder, make):
    row = logprobs_of(encoder.tokenizer, TEXT)
    for origin in ({}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 1.0}, {"temperature": 1.0, "top_p": 0.9}):
        targets, _, found = make(told(TEXT, damaged(row, origin={**origin, "tokenizer": row["origin"]["tokenizer"]})))
        assert not found and not targets.plain


def test_a_row_without_logprobs_has_no_targets(make):
    transcript = told(TEXT, {})
    assert make(transcript)[0] is None
    assert make(type(transcript)(transcript.id, transcript.messages))[0] is None


def test_cutting_keeps_the_candidates_of_what_is_left(encoder, make):
    targets, *_ = make(told(TEXT, logprobs_of(encoder.tokenizer, TEXT)))
    cut = targets.cut(20)
    assert len(cut.kind) == 20 and len(cut.ids) == (cut.kind == 1).sum() == len(cut.logprobs)
