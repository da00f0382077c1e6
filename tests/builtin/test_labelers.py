"""Labels: the article's own, TRL's recorded ones, and what each labeler trains."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from distill import IGNORE_INDEX, DataError, Message, Segment, TextFormat, UsageError, make_formatter
from distill.builtin.labelers.completion_only import CompletionOnlyCollator, completion_only_labels
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing import bloom_tokenizer
from distill.testing.tokenizers import TOKENIZERS

CASES = json.loads((Path(__file__).parents[1] / "fixtures/completion_only_collator_trl_0_19_1.json").read_text())

TURNS = [
    Message("user", 'How do you say "bird" in Spanish?'),
    Message("assistant", "pájaro"),
    Message("user", "And in French?"),
    Message("assistant", "oiseau"),
]


def encoder(name: str, tokenizer=None):
    return prepare_tokenizer(tokenizer or bloom_tokenizer(), make_formatter(name), name)


def trained(encoder, labels) -> str:
    return encoder.tokenizer.decode([label for label in labels if label != IGNORE_INDEX])


def test_collator_equals_trls():
    """200 batches recorded from TRL 0.19.1, of every tokenizer and template it was tried with."""
    assert len(CASES) == 200
    wrong = []
    for number, case in enumerate(CASES):
        collate = CompletionOnlyCollator(
            case["response_template"], case["instruction_template"], case["pad_token_id"], as_trl=True
        )
        batch = collate([{"input_ids": row} for row in case["rows"]])
        wrong += [
            (number, key) for key in ("input_ids", "attention_mask", "labels") if batch[key].tolist() != case[key]
        ]
    assert not wrong


def test_masked_gives_the_articles_labels(manager):
    """Everything up to and including bos is -100; answer and eos are kept, in every turn."""
    made = encoder("special-tokens")
    tokenizer = made.tokenizer
    text = (
        '\n\n### Human:How do you say "bird" in Spanish?\n\n### Assistant:<s>pájaro</s>'
        "\n\n### Human:And in French?\n\n### Assistant:<s>oiseau</s>"
    )
    ids = tokenizer(text, add_special_tokens=False).input_ids
    expected, keep = [], False
    for token in ids:
        expected.append(token if keep else IGNORE_INDEX)
        keep = token == tokenizer.bos_token_id or (keep and token != tokenizer.eos_token_id)
    encoded = made.encode(TURNS)
    assert encoded.input_ids == ids
    assert manager.labelers.build("masked", {}, made).label(encoded) == expected
    assert trained(made, expected) == "pájaro</s>oiseau</s>"


def test_copy_copies(manager):
    made = encoder("special-tokens")
    encoded = made.encode(TURNS)
    assert manager.labelers.build("copy", {}, made).label(encoded) == encoded.input_ids


@pytest.mark.parametrize("format_name", ["special-tokens", "chat-template"])
@pytest.mark.parametrize("kind", ["bloom", "chatml", "llama3", "gemma", "bare"])
def test_trl_trains_the_end_of_turn_by_default(manager, kind, format_name):
    made = encoder(format_name, TOKENIZERS[kind]())
    for turns in (TURNS, TURNS[:2], [Message("system", "Be brief."), *TURNS]):
        if kind == "gemma" and turns[0].role == "system":
            continue
        encoded = made.encode(turns)
        masked = manager.labelers.build("masked", {}, made).label(encoded)
        labels = manager.labelers.build("trl", {}, made).label(encoded)
        last = max(n for n, mark in enumerate(encoded.end_of_turn) if mark)
        assert labels[: last + 1] == masked[: last + 1]  # what follows the last marker is template text


@pytest.mark.parametrize("kind", ["bloom", "chatml"])
def test_trl_can_do_as_the_article_did(manager, kind):
    """Its instruction template is eos, so that every eos is masked."""
    made = encoder("special-tokens", TOKENIZERS[kind]())
    tokenizer = made.tokenizer
    encoded = made.encode(TURNS)
    old = manager.labelers.build("trl", {"end_of_turn": "false"}, made).label(encoded)
    article = completion_only_labels(encoded.input_ids, [tokenizer.bos_token_id], [tokenizer.eos_token_id])
    assert old == article
    assert trained(made, old) == "pájarooiseau"


def test_trl_takes_templates_by_option(manager):
    made = encoder("special-tokens")
    labeler = manager.labelers.build(
        "trl", {"response_template": "<s>", "instruction_template": "\\n\\n### Human:"}, made
    )
    assert trained(made, labeler.label(made.encode(TURNS))) == "pájaro</s>oiseau</s>"


def test_trl_refuses_rows_it_would_label_wrongly(manager):
    made = encoder("special-tokens")
    labeler = manager.labelers.build("trl", {"response_template": "\\n\\n### Human:"}, made)
    with pytest.raises(DataError, match="would be trained"):
        labeler.label(made.encode(TURNS))


class Numbered:
    """A format that puts a length right before each answer: no tokens are the same before all of them."""

    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = []
        for turn, message in enumerate(messages):
            size = f"\n#{len(message.content)}" if message.role == "assistant" else "\n### Human:"
            segments += [Segment(size), Segment(message.content, True, message.role, turn)]
            if message.role == "assistant":
                segments.append(Segment(tokenizer.eos_token, False, "assistant", turn, end_of_turn=True))
        return segments


def test_trl_needs_constant_templates(manager):
    made = Encoder(bloom_tokenizer(), Numbered(), "numbered")
    with pytest.raises(UsageError, match=r"'numbered' puts no constant tokens") as caught:
        manager.labelers.build("trl", {}, made)
    assert "-L response_template=" in caught.value.hint


@pytest.mark.parametrize("format_name", ["special-tokens", "chat-template"])
def test_trls_collator_gives_what_its_labels_show(manager, format_name):
    made = encoder(format_name, TOKENIZERS["chatml"]())
    labeler = manager.labelers.build("trl", {}, made)
    rows = [made.encode(TURNS), made.encode(TURNS[:2])]
    batch = labeler.collator(made.tokenizer.pad_token_id)(
        [{"input_ids": row.input_ids, "labels": labeler.label(row)} for row in rows]
    )
    for n, row in enumerate(rows):
        size = len(row.input_ids)
        assert batch["labels"][n, :size].tolist() == labeler.label(row)
        assert (batch["labels"][n, size:] == IGNORE_INDEX).all()
        assert batch["attention_mask"][n].tolist() == [1] * size + [0] * (batch["labels"].shape[1] - size)


def test_pad_that_is_eos_leaves_eos_trained(manager):
    """DataCollatorForLanguageModeling masks it; a student whose labels are masked so never stops."""
    made = encoder("chat-template", TOKENIZERS["chatml"]())
    labeler = manager.labelers.build("trl", {}, made)
    stop = made.stop_token_id()
    encoded = made.encode(TURNS)
    batch = labeler.collator(pad_token_id=stop)([{"input_ids": encoded.input_ids}])
    assert (batch["labels"] == stop).sum() == 2


PLAIN = TextFormat(name="plain", user="\n\n### Human:{}", assistant="\n\n### Assistant:{}", end="{eos}")
"""A format whose response template is text that a question may have too."""


@pytest.mark.parametrize("kind", ["wordpiece", "bare"])
def test_trl_labels_as_masked_does_or_refuses_whatever_the_messages_say(manager, kind):
    """Messages are made of pieces of the format's own text: a question may end with the response template."""
    chance = random.Random(20261128)
    made = prepare_tokenizer(TOKENIZERS[kind](), PLAIN, "plain")
    masked, labeler = (manager.labelers.build(labels, {}, made) for labels in ("masked", "trl"))
    texts = [made.tokenizer.decode(ids) for ids in (labeler.response, labeler.instruction)]
    pieces = [*texts, *(text.strip() for text in texts), *"abcdef", "Yes .", "### Assistant:", ":"]
    labelled = 0
    for _ in range(300):
        said = ["".join(chance.choices(pieces, k=chance.randint(1, 4))).strip() or "a" for _ in range(4)]
        encoded = made.encode([Message(role, text) for role, text in zip(["user", "assistant"] * 2, said, strict=True)])
        try:
            labels = labeler.label(encoded)
        except DataError:
            continue
        labelled += 1
        last = max(n for n, mark in enumerate(encoded.end_of_turn) if mark)
        assert labels[: last + 1] == masked.label(encoded)[: last + 1], said
    assert labelled > 5
