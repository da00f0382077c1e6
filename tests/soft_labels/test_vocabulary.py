"""A vocabulary as bytes: joined, the tokens of a text are its bytes; control tokens are no text."""

from __future__ import annotations

import pytest

from distill.soft_labels.vocabulary import Vocabulary, tokenizer_fingerprint
from distill.testing import bloom_tokenizer
from distill.testing.tokenizers import TOKENIZERS

TEXTS = [
    "Hello there", "naïve café", " two  spaces\n\n and a\ttab", "👩\u200d👧 and 🇪🇸",
    "e\u0301", "中文", "<s> </s>", "0x0A",
]  # fmt: skip
LOSSY = {"unigram", "wordpiece"}  # no byte fallback, or no spaces: what they cannot spell has no teacher


@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if kind not in LOSSY])
def test_tokens_join_to_the_text(kind):
    tokenizer = TOKENIZERS[kind]()
    vocabulary = Vocabulary(tokenizer)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(vocabulary.bytes_of(ids)) == text.encode(), (kind, text)


def test_bytes_never_become_a_control_token():
    tokenizer = bloom_tokenizer()
    controls = set(tokenizer.all_special_ids)
    vocabulary = Vocabulary(tokenizer, controls)
    assert vocabulary.id_of(b"</s>") == -1 and vocabulary.id_of(b"") == -1
    assert all(vocabulary.canonical[id] == -1 for id in controls)
    for id in range(vocabulary.size):
        if id not in controls:
            assert vocabulary.bytes_of([vocabulary.id_of(vocabulary.bytes_of([id])[0])]) == vocabulary.bytes_of([id])
    assert vocabulary.bytes_of([10**6, -1]) == [b"", b""]


def test_a_fingerprint_is_of_the_vocabulary():
    one, other = bloom_tokenizer(), bloom_tokenizer()
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
    other.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})  # a chat format's, at the end
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(TOKENIZERS["gemma"]())
