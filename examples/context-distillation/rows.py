"""Write the prompts and the hold-out set: a written-out date is asked for, and only the prompt tells what for.

    python rows.py [SEED]

`prompts.jsonl` is for the teacher, `held-out.jsonl` has the right answers. Each row has the same six examples in
`teacher_messages`: the teacher sees them, the student never does.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
from typing import Any

EXAMPLES, PROMPTS, HELD_OUT = 6, 96, 60
FIRST, DAYS = datetime.date(1950, 1, 1), 80 * 365


def question(day: datetime.date) -> str:
    """A date in words, such as `Friday, August 9, 2019`."""
    return f"{day:%A}, {day:%B} {day.day}, {day.year}"


def rows(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The prompts, and the held-out conversations, of different days."""
    numbers = random.Random(seed).sample(range(DAYS), EXAMPLES + PROMPTS + HELD_OUT)
    days = [FIRST + datetime.timedelta(number) for number in numbers]
    shown, asked, held = days[:EXAMPLES], days[EXAMPLES : EXAMPLES + PROMPTS], days[EXAMPLES + PROMPTS :]
    examples = [
        message
        for day in shown
        for message in (
            {"role": "user", "content": question(day)},
            {"role": "assistant", "content": day.isoformat()},
        )
    ]
    prompts = [{"prompt": question(day), "teacher_messages": examples} for day in asked]
    answered = [
        {
            "messages": [
                {"role": "user", "content": question(day)},
                {"role": "assistant", "content": day.isoformat()},
            ],
            "metadata": {"teacher_messages": examples},
        }
        for day in held
    ]
    return prompts, answered


def main() -> None:
    """Write both files into the current folder."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for name, made in zip(("prompts.jsonl", "held-out.jsonl"), rows(seed), strict=True):
        with open(name, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in made)


if __name__ == "__main__":
    main()
