"""A local teacher that thinks, in every family's format: its tokens are the student's, the format's own among them."""

from __future__ import annotations

import pytest
from family_table import FAMILIES, MANAGER

from distill import LogprobsOrigin, LogprobsPacker, Message, TokenLogprobs, Transcript, make_formatter
from distill.dataset.prepare import prepare
from distill.encode.answers import read_answer
from distill.encode.tokenizer import prepare_tokenizer
from distill.soft_labels.targets import SoftLabeler

ASKED = Message("user", "How cold is it?")


def told(encoder, answer: Message, cut: int = 0) -> tuple[Transcript, int]:
    """What such a teacher's row holds, and how many tokens it wrote; `cut`: without its first tokens."""
    encoded, start = encoder.encode([ASKED, answer]), len(encoder.prompt([ASKED]))
    ends = [n for n in range(start, len(encoded.input_ids)) if encoded.end_of_turn[n]]
    stop = next(n for n in ends if encoded.input_ids[n] in encoder.stops)
    ids = encoded.input_ids[start : stop + 1]
    read = read_answer(encoder, ids[:-1])
    kept = TokenLogprobs(ids[cut:], [-0.5] * len(ids[cut:]), [[id] for id in ids[cut:]], [[-0.5]] * len(ids[cut:]))
    packed = LogprobsPacker(encoder).pack(kept, LogprobsOrigin(temperature=1.0, top_p=1.0))
    message = Message("assistant", read.text, read.reasoning)
    return Transcript("r", (ASKED, message), metadata={"logprobs": [packed]}), len(ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_that_it_wrote_is_a_target(name):
    encoder = prepare_tokenizer(
        FAMILIES[name].tokenizer(), make_formatter("chat-template", {}, MANAGER), "chat-template"
    )
    labeler = MANAGER.labelers.build("masked", {}, encoder)
    for answer in (Message("assistant", "Rather fresh.", "Seven degrees."), Message("assistant", "Rather fresh.")):
        row, written = told(encoder, answer)
        made = prepare([row], encoder, labeler, soft=SoftLabeler(encoder))
        assert not any(code.startswith("logprobs-") for code in made.findings.counts)
        assert made.shares.exact >= min(written, made.shares.trained), (made.shares, written)


def test_a_part_of_the_answer_is_another_text():
    encoder = prepare_tokenizer(
        FAMILIES["Qwen 3"].tokenizer(), make_formatter("chat-template", {}, MANAGER), "chat-template"
    )
    row, _ = told(encoder, Message("assistant", "Rather fresh, and windy."), cut=9)
    made = prepare([row], encoder, MANAGER.labelers.build("masked", {}, encoder), soft=SoftLabeler(encoder))
    assert made.findings.counts["logprobs-other-text"] == 1
