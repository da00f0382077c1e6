"""Questions whose answers are short: what a teacher of 135 million parameters can say something about."""

from __future__ import annotations

import json
import random
import sys

FORMS = [
    "What is {}? Answer in one short sentence.",
    "Why is {} important? Answer in one short sentence.",
    "Say one surprising thing about {}, briefly.",
    "Explain {} to a child in one sentence.",
    "Where would one find {}? One short sentence, please.",
    "Give one short piece of advice about {}.",
    "Write one short line of a poem about {}.",
    "How would you describe {} in ten words?",
    "Who would care about {}, and why? One short sentence.",
    "Ask me one short question about {}.",
]
THINGS = [
    "rain", "bread", "a bicycle", "the moon", "gravity", "friendship", "a library", "chess", "the sea", "a volcano",
    "coffee", "a cat", "winter", "music", "a bridge", "paper", "honey", "a clock", "electricity", "a garden",
    "the heart", "sleep", "a market", "salt", "a map", "fire", "glass", "a forest", "money", "the Internet",
    "a train", "tea", "a mountain", "memory", "a telescope", "wind", "a school", "silk", "a river", "bees",
    "mathematics", "a ship", "snow", "a violin", "the desert", "cheese", "a dictionary", "courage", "an island", "ice",
]  # fmt: skip


def prompts(count: int, seed: int = 0) -> list[str]:
    """Some of the questions, in an order of their own."""
    every = [form.format(thing) for form in FORMS for thing in THINGS]
    random.Random(seed).shuffle(every)
    return every[:count]


if __name__ == "__main__":
    for text in prompts(int(sys.argv[1])):
        print(json.dumps({"prompt": text}))
