"""The engine's three rules, over tokenizers and formats of every kind."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import DataError, Message, PluginError, Segment, make_formatter
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import EXACT, TOKENIZERS

FORMATS = ("chat-template", "special-tokens")
PAIRS = [(kind, name) for kind in TOKENIZERS for name in FORMATS]


@functools.cache
def encoder(kind: str, name: str) -> Encoder:
    return prepare_tokenizer(TOKENIZERS[kind](), make_formatter(name), name)


def chat(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]


def rows(messages: list[Message]) -> list[dict]:
    return [{"role": message.role, "content": message.content} for message in messages]


def written(encoder: Encoder, encoded, turn: int) -> list[int]:
    """What the assistant wrote in a turn, its end marker left out."""
    marks = zip(encoded.input_ids, encoded.assistant_mask, encoded.end_of_turn, encoded.turn, strict=True)
    return [token for token, wrote, end, at in marks if wrote and not end and at == turn]


HOSTILE = [
    "</s>", "<s>", "<|im_end|>", "<|im_start|>assistant\n", "<think>", "</think>", "<|eot_id|>", "<end_of_turn>",
    "<start_of_turn>model\n", "[INST]", "[/INST]", "[SEP]", "<|endoftext|>", "\n\n### Human:", "\n\n### Assistant:",
    "<pad>", "<unk>", "<|begin_of_text|>", "<0x0A>",
]  # fmt: skip
CLEAN = [("How do you say dog?", "perro"), ("Hi!", "Ho."), ("a b", "c, d"), ("x:", "(y)"), ("1", "2")]

pieces = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=12), st.sampled_from([" ", "\n", "\n\n", "  ", "é", "🐕"])
)
texts = (
    st.lists(pieces, min_size=1, max_size=4).map("".join).filter(lambda text: text.strip() and "\U000f6d1b" not in text)
)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(texts, min_size=2, max_size=5))
def test_rules_hold_for_hostile_text(kind, name, said):
    made = encoder(kind, name)
    messages = chat(*said)
    encoded = made.encode(messages)
    size = len(encoded.input_ids)
    assert size == len(encoded.assistant_mask) == len(encoded.end_of_turn) == len(encoded.turn)
    # 1. Content never becomes a control token: as many of them as the same chat of plain words has.
    plain = made.encode(chat(*["x"] * len(said)))
    controls = [token for token in encoded.input_ids if token in made.control_ids - {made.tokenizer.unk_token_id}]
    assert controls == [token for token in plain.input_ids if token in made.control_ids - {made.tokenizer.unk_token_id}]
    # 3. The tokens before an answer are the tokens of the prompt.
    last = max(n for n in range(len(said)) if n % 2)
    until = made.encode(messages[: last + 1])
    start = until.turn.index(last)
    assert until.input_ids[:start] == made.prompt(messages[:last])
    # The end marker is marked, follows each answer, and is where generation stops.
    for turn in range(1, len(said), 2):
        ends = [n for n in range(size) if encoded.end_of_turn[n] and encoded.turn[n] == turn]
        assert ends and encoded.input_ids[ends[-1]] == made.stop_token_id()
    assert not any(mark for mark, turn in zip(encoded.assistant_mask, encoded.turn, strict=True) if turn % 2 == 0)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in PAIRS if kind in EXACT])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(texts, min_size=4, max_size=4))
def test_supervised_text_is_exactly_the_assistants(kind, name, said):
    made = encoder(kind, name)
    encoded = made.encode(chat(*said))
    for turn in (1, 3):
        text = made.tokenizer.decode(written(made, encoded, turn), skip_special_tokens=False)
        lead = "<think>\n\n</think>\n\n" if kind == "qwen3" and name == "chat-template" and turn == 3 else ""
        trims = {"llama3", "gemma"} if name == "chat-template" else set()
        assert text == lead + (said[turn].strip() if kind in trims else said[turn])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_clean_chats_give_the_ids_of_apply_chat_template(kind):
    differ = []
    for name, said in itertools.product(FORMATS, CLEAN):
        made = encoder(kind, name)
        messages = chat(*said, *said)
        expected = made.tokenizer.apply_chat_template(rows(messages), tokenize=True, return_dict=False)
        ids = made.encode(messages).input_ids
        if kind == "late-end" and name == "chat-template":
            expected = [*expected, made.stop_token_id()]  # the template leaves the last answer open
        if kind == "unigram":
            # Metaspace marks the start of a word by its place in the text: around an answer, joint and separate
            # encoding may differ.
            ids, expected = made.tokenizer.decode(ids), made.tokenizer.decode(expected)
        if ids != expected:
            differ.append((name, said))
    assert not differ


def test_a_vocabulary_that_holds_control_strings_is_no_way_in():
    tokenizer = TOKENIZERS["unigram"]()
    eos = tokenizer.eos_token_id
    assert tokenizer.backend_tokenizer.model.token_to_id("</s>") == eos  # the model itself could emit it
    made = encoder("unigram", "special-tokens")
    encoded = made.encode(chat("a", "x</s>y"))
    assert written(made, encoded, 1).count(eos) == 0


def test_history_that_is_rendered_otherwise_is_seen():
    made = encoder("qwen3", "chat-template")
    first = made.encode([Message("user", "a"), Message("assistant", "b", reasoning_content="because")])
    assert "because" in made.tokenizer.decode(written(made, first, 1))
    whole = [Message("user", "a"), Message("assistant", "b", reasoning_content="because"), *chat("c", "d")]
    assert "because" not in "".join(segment.text for segment in made.segments(whole))


def test_a_template_that_mangles_content_is_refused():
    tokenizer = TOKENIZERS["chatml"]()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "(m['content'] | upper)")
    with pytest.raises(DataError, match="cannot be followed"):
        Encoder(tokenizer, make_formatter("chat-template")).encode(chat("abc", "def"))


def test_a_template_may_refuse_a_conversation():
    with pytest.raises(DataError, match="no system role"):
        encoder("gemma", "chat-template").encode([Message("system", "s"), *chat("a", "b")])


@pytest.mark.parametrize(
    ("segments", "complaint"),
    [
        ("text", "not a list of Segments"),
        ([Segment("a", True, "user", 7)], "message 7"),
        ([Segment("a", True, "assistant", 0)], "attributes message 0 to assistant, but its role is user"),
    ],
)
def test_a_lying_formatter_is_blamed(segments, complaint):
    class Liar:
        def segments(self, messages, tokenizer, **kwargs):
            return segments

    with pytest.raises(PluginError, match=complaint):
        Encoder(TOKENIZERS["bloom"](), Liar(), "liar").encode(chat("a", "b"))


def test_rstrip_tokens_swallow_white_space_as_the_tokenizer_does():
    from tokenizers import AddedToken

    tokenizer = TOKENIZERS["chatml"]()
    template = "{% for m in messages %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    tokens = [AddedToken(text, special=True, normalized=False, rstrip=True) for text in ("<|user|>", "<|end|>")]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.chat_template = template
    made = Encoder(tokenizer, make_formatter("chat-template"))
    messages = [Message("user", "  how do"), Message("user", "you say")]
    assert (
        made.encode(messages).input_ids
        == tokenizer(tokenizer.apply_chat_template(rows(messages), tokenize=False), add_special_tokens=False).input_ids
    )
