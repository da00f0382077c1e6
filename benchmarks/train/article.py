"""The article's experiment on a real student: steps, seconds and memory until it answers a question put otherwise.

    python benchmarks/train/article.py [--student smollm2]

Each labeler trains the article's five chats (examples/article) in a process of its own, and after every step the
student is asked a question that is not among them, in other words: it must give the answer, letter by letter, and stop.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import distill
from distill import ChatModel, Encoder, Message, TrainJob, TrainResult
from distill.plugins import PluginRecord

CHATS = Path(__file__).parents[2] / "examples/article/chats.jsonl"
QUESTION, ANSWER = 'What is the Spanish word for "horse"?', "caballo"
LABELERS = ("copy", "masked", "trl")


class Reached(Exception):
    """The student gave the answer."""


class Watched:
    """The built-in `hf` trainer, with a look at the student after each step."""

    def __init__(self, found: dict):
        self.found = found

    def train(self, job: TrainJob, on_log) -> TrainResult:
        """Train until the student gives the answer."""
        from distill.builtin.trainers.hugging_face import HuggingFaceTrainer

        encoder = Encoder(job.tokenizer, distill.make_formatter("chat-template"))
        chat, asking = ChatModel(job.model, encoder), 0.0
        began = time.perf_counter()

        def log(row) -> None:
            nonlocal asking
            on_log(row)
            pause = time.perf_counter()
            job.model.eval()
            said = chat.generate([[Message("user", QUESTION)]], max_tokens=12)[0]
            job.model.train()
            asking += time.perf_counter() - pause
            seconds = time.perf_counter() - began - asking
            self.found.update(steps=int(row["step"]), seconds=seconds, loss=row["loss"], said=said.text)
            if said.text == ANSWER and said.finish_reason == "stop":
                self.found["reached"] = True
                raise Reached

        return HuggingFaceTrainer({}).train(job, log)


def measure(labeler: str, student: str) -> dict:
    """Train with one labeler, in this process."""
    from distill.training import TrainSettings, train

    found = {"labeler": labeler, "reached": False}

    class Plugin:
        @distill.hookimpl
        def register_trainers(self):
            return [distill.TrainerSpec("watched", "", lambda options: Watched(found))]

    manager = distill.make_plugin_manager()
    manager.load(PluginRecord("watched", "benchmark"), Plugin)
    how = {"labeler": labeler, "trainer": "watched", "epochs": 40, "learning_rate": 5e-5}
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(student, (CHATS,), Path(folder) / "run", **how)
        with suppress(Reached):
            train(settings, manager)
    return {**found, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def main() -> None:
    """Measure each labeler and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="smollm2")
    parser.add_argument("--one", choices=LABELERS, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measure(words.one, words.student)))
        return
    print("| labeler | steps to the answer | s a step | peak GB | last loss | it says |\n|---|---|---|---|---|---|")
    for labeler in LABELERS:
        command = [sys.executable, __file__, "--one", labeler, "--student", words.student]
        found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        steps = found["steps"] if found["reached"] else f"not in {found['steps']}"
        print(
            f"| `{labeler}` | {steps} | {found['seconds'] / found['steps']:.2f} | {found['memory']:.2f} "
            f"| {found['loss']:.3f} | {found['said']!r} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
