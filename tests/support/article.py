"""The chats of the article that distill comes from."""

from __future__ import annotations

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
