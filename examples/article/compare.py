"""Train the same five chats with each labeler, and print what came of it as a table.

python compare.py --student smollm2 --epochs 25 --learning-rate 1e-4
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from distill import ChatModel, make_formatter, make_plugin_manager
from distill.models.references import resolve_model
from distill.training import TrainSettings, train
from distill.transcripts.reader import read_transcripts

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
    manager = make_plugin_manager()
    chats = list(read_transcripts(CHATS))
    asked = [
        (chat.messages[:turn], chat.messages[turn].content)
        for chat in chats
        for turn in (1, 3)[: len(chat.messages) // 2]
    ]
    print("| labeler | trained tokens | loss, first → last step | answers right | stopped | s a step |")
    print("|---|---|---|---|---|---|")
    for labeler, options in VARIANTS:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            settings = TrainSettings(
                student,
                (CHATS,),
                out,
                formatter="special-tokens",
                labeler=labeler,
                labeler_options=options,
                trainer=trainer,
                epochs=epochs,
                learning_rate=learning_rate,
                per_device_train_batch_size=5,
                allow=("end-not-trained",),  # the label proof would refuse the last variant, rightly
            )
            report = train(settings, manager)
            losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
            chat = ChatModel.load(resolve_model(str(out), manager), make_formatter("chat-template", manager=manager))
            answers = chat.generate([messages for messages, _ in asked], max_tokens=16)
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
