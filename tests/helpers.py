"""Tiny models and tokenizers of `distill.testing`, under the name the tests know them by, and the article's rows."""

from __future__ import annotations

from distill.testing import bloom_tokenizer, byte_bpe, save_student, tiny_bloom, tiny_llama
from distill.testing.tokenizers import BLOOM_TOKENS, CORPUS

save = save_student

# The article's rows.
ARTICLE = [
    [("user", 'How do you say "dog" in Spanish?'), ("assistant", "perro")],
    [("user", 'How do you say "cat" in Spanish?'), ("assistant", "gato")],
    [("user", 'How do you say "horse" in Spanish?'), ("assistant", "caballo")],
    [
        ("user", 'How do you say "bird" in Spanish?'),
        ("assistant", "pájaro"),
        ("user", "And in French?"),
        ("assistant", "oiseau"),
    ],
    [("user", 'How do you say "fish" in Spanish?'), ("assistant", "pez")],
]

__all__ = ["ARTICLE", "BLOOM_TOKENS", "CORPUS", "bloom_tokenizer", "byte_bpe", "save", "tiny_bloom", "tiny_llama"]
