"""Rows in = rows trained + rows skipped, each skipped one with its reason and place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import (
    IGNORE_INDEX,
    DataError,
    DistillError,
    Message,
    PluginError,
    Segment,
    Source,
    Transcript,
    make_formatter,
    make_plugin_manager,
)
from distill.dataset.prepare import prepare
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing import bloom_tokenizer
from distill.testing.tokenizers import TOKENIZERS

LABELERS = ("copy", "masked", "trl")


@pytest.fixture(scope="module")
def encoder():
    return prepare_tokenizer(bloom_tokenizer(), make_formatter("special-tokens"), "special-tokens")


def transcript(*said: str, line: int = 1, **metadata) -> Transcript:
    messages = tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said))
    return Transcript(f"t{line}", messages, metadata=metadata, source=Source("data.jsonl", line))


@pytest.mark.parametrize("labeler", LABELERS)
def test_every_row_is_accounted_for(encoder, manager, labeler):
    rows = [
        transcript("q", "a", line=1),
        transcript("q", line=2),
        transcript("q", " \n", line=3),
        transcript("q", "cut", line=4, finish_reason="length"),
        Transcript(
            "t5", (Message("user", "q"), Message("assistant", "a", train=False)), source=Source("data.jsonl", 5)
        ),
        Transcript("t6", (Message("user", "q"), Message("tool", "r"), Message("assistant", "a"))),
        transcript("q", "a", "q2", "a2", line=7),
    ]
    prepared = prepare(rows, encoder, manager.labelers.build(labeler, {}, encoder), labeler_name=labeler)
    assert prepared.rows == 7 == prepared.trained_rows + len(prepared.skipped)
    assert [example.id for example in prepared.examples] == ["t1", "t7"]
    reasons = {skipped.source: skipped.reason for skipped in prepared.skipped}
    assert reasons["data.jsonl:2"] == "no assistant message"
    assert reasons["data.jsonl:3"] == "message 1: the answer is empty"
    assert "length limit" in reasons["data.jsonl:4"]
    assert "weight 0" in reasons["data.jsonl:5"]
    assert "no tools" in reasons["?"]


@pytest.mark.parametrize("labeler", LABELERS)
def test_weight_0_is_honoured_per_message(encoder, manager, labeler):
    row = Transcript(
        "t",
        (
            Message("user", "q"),
            Message("assistant", "no", train=False),
            Message("user", "r"),
            Message("assistant", "yes"),
        ),
    )
    example = prepare([row], encoder, manager.labelers.build(labeler, {}, encoder)).examples[0]
    trained = encoder.tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX])
    assert "no" not in trained.replace("### Human", "") and trained.endswith("yes</s>")


@pytest.mark.parametrize("labeler", LABELERS)
def test_a_cut_row_has_a_window_of_the_full_labels(encoder, manager, labeler):
    made = manager.labelers.build(labeler, {}, encoder)
    row = transcript("How do you say dog?", "perro, gato", "And in French?", "chien")
    full = prepare([row], encoder, made).examples[0]
    for length in range(2, len(full.input_ids) + 1):
        prepared = prepare([row], encoder, made, max_length=length, overlong="truncate")
        assert prepared.trained_rows + len(prepared.skipped) == 1
        for example in prepared.examples:
            assert example.trained_tokens
            assert (example.input_ids, example.labels) == (full.input_ids[:length], full.labels[:length])


def test_overlong_rows_are_an_error_that_names_the_longest_and_the_way_out(encoder, manager):
    rows = [transcript("q", "a " * n, line=n) for n in range(1, 101)]
    masked = manager.labelers.build("masked", {}, encoder)
    with pytest.raises(DistillError, match=r"data.jsonl:100 \(\d+ tokens\), data.jsonl:99") as caught:
        prepare(rows, encoder, masked, max_length=100)
    for share in ("95 %", "99 %", "100 %"):
        assert share in caught.value.hint
    dropped = prepare(rows, encoder, masked, max_length=100, overlong="drop")
    assert dropped.trained_rows + len(dropped.skipped) == 100
    assert "more than --max-length 100" in dropped.skipped[0].reason


def test_history_that_the_template_rewrites_splits_the_row(manager):
    encoder = prepare_tokenizer(TOKENIZERS["qwen3"](), make_formatter("chat-template"), "chat-template")
    labeler = manager.labelers.build("masked", {}, encoder)
    prepared = prepare([transcript("q", "first", "r", "second")], encoder, labeler)
    assert (prepared.rows, prepared.expanded_rows, len(prepared.examples)) == (1, 1, 2)
    texts = [
        encoder.tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX])
        for example in prepared.examples
    ]
    assert texts == ["<think>\n\n</think>\n\nfirst<|im_end|>", "<think>\n\n</think>\n\nsecond<|im_end|>"]


def test_an_answer_lost_from_a_split_row_is_found(manager):
    encoder = prepare_tokenizer(TOKENIZERS["qwen3"](), make_formatter("chat-template"), "chat-template")

    class Picky:
        def label(self, encoded):
            if max(encoded.turn) > 1:
                raise DataError("too late")
            return list(encoded.input_ids)

    row = transcript("q", "first", "r", "second", line=4)
    prepared = prepare([row], encoder, Picky(), labeler_name="picky")
    assert (prepared.rows, prepared.trained_rows, len(prepared.examples), prepared.skipped) == (1, 1, 1, [])
    assert prepared.findings.rows["answer-left-out"] == [("data.jsonl:4", "labeler 'picky': too late")]
    masked = manager.labelers.build("masked", {}, encoder)
    lengths = prepare([row], encoder, masked).examples.lengths
    short = prepare([row], encoder, masked, max_length=int(lengths.min()), overlong="drop")
    assert short.trained_rows == 1 and "answer-left-out" in short.findings.counts


class Bad:
    def __init__(self, labels):
        self.labels = labels

    def label(self, encoded):
        return self.labels(encoded.input_ids)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (lambda ids: ids[:-1], "expected one label per token"),
        (lambda ids: [10**6] * len(ids), "neither the token's id"),
        (lambda ids: None, "expected one label per token"),
        (lambda ids: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_labeler_that_breaks_its_contract_is_blamed(encoder, labels, complaint):
    with pytest.raises(PluginError, match=complaint) as caught:
        prepare([transcript("q", "a", line=3)], encoder, Bad(labels), labeler_name="bad")
    assert "labeler 'bad'" in caught.value.message and "on data.jsonl:3" in caught.value.message


def test_a_labeler_that_masks_all_skips_the_row(encoder):
    prepared = prepare([transcript("q", "a")], encoder, Bad(lambda ids: [IGNORE_INDEX] * len(ids)), labeler_name="none")
    assert prepared.skipped[0].reason == "labeler 'none' leaves no token to train"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=8), max_size=5), max_size=12))
def test_rows_in_are_rows_out(encoder, manager, chats):
    rows = [transcript(*said, line=n) for n, said in enumerate(chats, 1)]
    for labeler in LABELERS:
        prepared = prepare(rows, encoder, manager.labelers.build(labeler, {}, encoder), max_length=40, overlong="drop")
        assert prepared.rows == len(rows) == prepared.trained_rows + len(prepared.skipped)
        assert {example.id for example in prepared.examples}.isdisjoint(row.id for row in prepared.skipped)


def test_a_formatter_that_fails_is_blamed_with_its_row(encoder, manager):
    class Broken:
        def segments(self, messages, tokenizer, **kwargs):
            raise KeyError("role")

    broken = Encoder(encoder.tokenizer, Broken(), "broken")
    with pytest.raises(PluginError, match=r"data.jsonl:3: formatter 'broken' failed: KeyError"):
        prepare([transcript("q", "a", line=3)], broken, Bad(list))


def test_every_row_is_verified_though_many_share_one_structure():
    """A format whose generation prompt is wrong for a single row of many that look alike is caught on that row."""

    class Slips:
        def special_tokens(self, tokenizer):
            return ["</s>"]

        def chat_template(self, tokenizer):
            return None

        def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
            slip = add_generation_prompt and messages and messages[0].content == "slip"
            segments = []
            for index, message in enumerate(messages):
                segments.append(Segment("A:" if message.role == "assistant" else "Q:"))
                segments.append(Segment(message.content, True, message.role, index))
                if message.role == "assistant":
                    segments.append(Segment("</s>", False, "assistant", index, end_of_turn=True))
            return [*segments, Segment("B:" if slip else "A:")] if add_generation_prompt else segments

    encoder = prepare_tokenizer(bloom_tokenizer(), Slips(), "slips")
    rows = [transcript("slip" if n == 7 else f"q{n}", f"a{n}", line=n) for n in range(20)]
    prepared = prepare(rows, encoder, make_plugin_manager().labelers.build("masked", {}, encoder))
    assert [(row.source, "generation prompt" in row.reason) for row in prepared.skipped] == [("data.jsonl:7", True)]
    assert prepared.trained_rows == 19
