"""Train the same five chats with each labeler, and print what came of it as a table.

python compare.py --student smollm2 --epochs 25 --learning-rate 1e-4
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

import distill

CHATS = Path(__file__).parent / "chats.jsonl"

VARIANTS = (
    ("copy", {}),
    ("masked", {}),
    ("trl", {}),
    ("trl", {"end_of_turn": "false"}),  # as the article used TRL's collator
)


@click.command()
@click.option("--student", default="bigscience/bloom-560m", show_default=True)
@click.option("--trainer", default="hf", show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option("--learning-rate", default=5e-5, show_default=True)
def compare(student: str, trainer: str, epochs: int, learning_rate: float) -> None:
    """Compare the labelers on the article's five chats."""
    asked = [
        (chat.messages[:turn], chat.messages[turn].content)
        for chat in distill.read_transcripts(CHATS)
        for turn in (1, 3)[: len(chat.messages) // 2]
    ]
    print("| labeler | trained tokens | loss, first → last step | answers right | stopped | s a step |")
    print("|---|---|---|---|---|---|")
    for labeler, options in VARIANTS:
        with tempfile.TemporaryDirectory() as scratch:
            run = distill.train(
                CHATS,
                student=student,
                out=Path(scratch) / "run",
                formatter="special-tokens",
                labeler=labeler,
                labeler_options=options,
                trainer=trainer,
                epochs=epochs,
                learning_rate=learning_rate,
                batch_size=5,
                allow=["end-not-trained"],  # the label check would refuse the last variant, rightly
                progress=False,
            )
            losses = [row["loss"] for row in run.metrics()]
            chat = distill.load_chat_model(run.path, formatter="chat-template")
            answers = chat.generate([messages for messages, _ in asked], max_tokens=16)
        report = run.report
        right = sum(answer.text == text for answer, (_, text) in zip(answers, asked, strict=True))
        stopped = sum(answer.finish_reason == "stop" for answer in answers)
        name = labeler + "".join(f", {key}={value}" for key, value in options.items())
        print(
            f"| `{name}` | {report.trained_tokens} of {report.tokens} | {losses[0]:.2f} → {losses[-1]:.2f} "
            f"| {right} of {len(asked)} | {stopped} of {len(asked)} | {report.seconds / report.steps:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    compare()
