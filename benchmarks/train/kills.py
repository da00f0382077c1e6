"""Real kills: `kill -9` at random moments of a training, then `--resume`; the student must be the same, bit by bit.

Each training is a process of its own, forked off one that has imported all and done nothing, so that a kill costs a
second and not ten. The moment is drawn over the whole of a clean training: reading, loading, stepping, writing
checkpoints, saving. Prints a table, and ends with exit code 1 when one student differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

CHATS = [
    ('How do you say "dog" in Spanish?', "perro"),
    ('How do you say "cat" in Spanish?', "gato"),
    ('How do you say "horse" in Spanish?', "caballo"),
    ('How do you say "fish" in Spanish?', "pez"),
    ('How do you say "bird" in Spanish?', "pájaro"),
]


def in_child(work: Callable[[], object], kill_after: float | None = None) -> tuple[bool, float]:
    """Do it in a forked process; kill that after so many seconds.

    Returns:
        Whether it ended by itself, and its seconds.

    Raises:
        RuntimeError: it failed by itself.
    """
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    while kill_after is None or time.monotonic() - began < kill_after:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"a training ended with status {status}")
            return True, time.monotonic() - began
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, time.monotonic() - began


def prepare(folder: Path) -> None:
    """Make the student, with dropout, and its data; to be called in a child: it starts threads."""
    from distill.testing import save_student, tiny_bloom

    model, tokenizer = tiny_bloom()
    model.config.hidden_dropout = model.config.attention_dropout = 0.1
    save_student(model, tokenizer, folder / "student")
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in CHATS]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def training(folder: Path, out: Path, labeler: str, trainer: str, resume: bool) -> Callable[[], object]:
    """A training of 30 steps with accumulation, that writes a checkpoint every third step."""
    from distill.plugins import make_plugin_manager
    from distill.training import TrainSettings, train

    def work() -> None:
        settings = TrainSettings(
            str(folder / "student"),
            (folder / "data.jsonl",),
            out,
            formatter="special-tokens",
            labeler=labeler,
            trainer=trainer,
            epochs=10,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            save_steps=3,
        )
        train(settings, make_plugin_manager(), resume=resume)

    return work


def where(out: Path) -> str:
    """How far a killed training came."""
    if (out / "model").exists():
        return "after saving the student"
    if not (out / "run.json").exists():
        return "before the first step"
    complete = len(list(out.glob("checkpoints/*/complete.json")))
    return "between checkpoints" if complete else "before the first checkpoint"


def same(out: Path, whole: Path) -> bool:
    """Whether two trainings ended with the same bits: weights, losses of every step, and no file left over."""
    exact = ("model/model.safetensors", "metrics.jsonl", "skipped.jsonl")
    files = [sorted(str(path.relative_to(one)) for path in one.rglob("*")) for one in (out, whole)]
    if files[0] != files[1]:
        print(f"files differ: {set(files[0]) ^ set(files[1])}", flush=True)
    return files[0] == files[1] and all((out / name).read_bytes() == (whole / name).read_bytes() for name in exact)


def import_all() -> None:
    """Import, once for all children, what a training imports on its way."""
    import accelerate.state
    import datasets  # noqa: F401
    import torch._dynamo  # noqa: F401
    from transformers import BloomForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments  # noqa: F401
    from trl import SFTConfig, SFTTrainer  # noqa: F401

    import distill.testing
    import distill.training  # noqa: F401

    accelerate.state.PartialState._reset_state()


def main() -> int:
    """Kill and resume; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="for each labeler and trainer")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options = parser.parse_args()
    import_all()
    print(f"seed {options.seed}")
    draw, bad = random.Random(options.seed), 0
    folder = Path(tempfile.mkdtemp(prefix="distill-kills-"))
    os.environ["DISTILL_CACHE"] = str(folder / "cache")
    in_child(lambda: prepare(folder))
    print("| labeler | trainer | kills | killed | resumed | same weights and losses |\n|---|---|---|---|---|---|")
    for labeler in ("copy", "masked", "trl"):
        for trainer in ("hf", "trl"):
            whole = folder / "whole"
            seconds = in_child(training(folder, whole, labeler, trainer, False))[1]
            places, equal, kills = Counter(), 0, 0
            while kills < options.kills:
                out = folder / "run"
                if in_child(training(folder, out, labeler, trainer, False), draw.uniform(0, seconds))[0]:
                    shutil.rmtree(out)  # it was done sooner than the clean one
                    continue
                kills += 1
                places[where(out)] += 1
                in_child(training(folder, out, labeler, trainer, True))
                equal += same(out, whole)
                shutil.rmtree(out)
            killed = ", ".join(f"{count} {place}" for place, count in places.most_common())
            print(f"| `{labeler}` | `{trainer}` | {kills} | {killed} | {kills} | {equal} |", flush=True)
            bad += kills - equal
            shutil.rmtree(whole)
    shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
