"""How much a teacher's likeliest tokens are worth: one student, trained on the same answers towards more or less of it.

    python benchmarks/soft_labels/prompts.py 352 > prompts.jsonl
    distill collect prompts.jsonl --teacher smollm2 --logprobs 1024 --temperature 1 --seed 1 --max-tokens 80 \
        -T batch_size=88 --out told.jsonl
    python benchmarks/soft_labels/run.py told.jsonl --work DIR --seeds 3

The student is SmolLM2-135M-Instruct without a third of its layers; it has the teacher's tokenizer. Every way takes the
same steps over the same tokens. `python benchmarks/soft_labels/run.py --table DIR` prints the table of the results so
far.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "soft-labels"))

from prune import pruned

WAYS = {
    "text only": ("cross-entropy", {}, 0),
    "K = 5": ("soft-labels", {}, 5),
    "K = 20": ("soft-labels", {}, 20),
    "K = 64": ("soft-labels", {}, 64),
    "K = 1024": ("soft-labels", {}, 1024),
    "K = 20, rest": ("soft-labels", {"target": "rest"}, 20),
    "chunks": ("chunks", {}, 0),
}


@dataclass(frozen=True)
class Figures:
    """Of one student, over the held-out answers."""

    way: str
    seed: int
    kl: float
    perplexity: float
    agreement: float
    seconds: float
    per_answer: list[tuple[float, float, int]]  # KL, negative log-likelihood, tokens


def with_k(row: dict, k: int) -> dict:
    """A row that keeps only the K likeliest tokens."""
    from distill import pack_logprobs
    from distill.soft_labels.rows import parse_logprobs

    [kept] = row["metadata"]["logprobs"]
    read = parse_logprobs(kept)
    top = [
        [(int(id), float(value)) for id, value in zip(ids[:k], values[:k], strict=True) if id >= 0]
        for ids, values in zip(read.top_ids, read.top_logprobs, strict=True)
    ]
    own = [None if math.isnan(value) else float(value) for value in read.logprobs]
    made = pack_logprobs(read.tokens, own, ids=read.ids.tolist(), top=top, k=k, end=read.end, origin=read.origin)
    return {**row, "metadata": {**row["metadata"], "logprobs": [made]}}


def split(told: Path, work: Path, held_out: int, count: int) -> tuple[dict[int, Path], list[dict]]:
    """Training files by K, and the held-out rows; answers that were cut are left out."""
    rows = [json.loads(line) for line in told.open(encoding="utf-8")]
    rows = sorted((row for row in rows if row["metadata"]["finish_reason"] == "stop"), key=lambda row: row["id"])
    random.Random(0).shuffle(rows)
    files = {}
    for k in sorted({k for _, _, k in WAYS.values()}):
        files[k] = work / f"train-{k}.jsonl"
        if not files[k].exists():
            text = "".join(json.dumps(with_k(row, k), ensure_ascii=False) + "\n" for row in rows[held_out:][:count])
            files[k].write_text(text, encoding="utf-8")
    return files, rows[:held_out]


class Judge:
    """Measures students against the teacher's own distribution on held-out answers."""

    def __init__(self, teacher: Path, rows: list[dict]):
        from distill import ChatModel, Message, make_formatter

        self._load = lambda folder: ChatModel.load(str(folder), make_formatter("chat-template"), "chat-template", "cpu")
        model = self._load(teacher)
        self._conversations = [[Message(**message) for message in row["messages"]] for row in rows]
        self._told = [self._logprobs(model, one) for one in self._conversations]

    def _logprobs(self, chat, messages):
        import torch

        encoded = chat.encoder.encode(messages)
        ids = torch.tensor([encoded.input_ids])
        at = torch.tensor([n for n, wrote in enumerate(encoded.assistant_mask) if wrote])
        with torch.inference_mode():
            logits = chat.model(ids).logits[0, at - 1].float().log_softmax(-1)
        return logits, ids[0, at]

    def measure(self, folder: Path) -> list[tuple[float, float, float, int]]:
        """Per answer: the sums of KL(teacher, student), negative log-likelihoods and agreements, and the tokens."""
        chat, found = self._load(folder), []
        for messages, (teacher, labels) in zip(self._conversations, self._told, strict=True):
            student, _ = self._logprobs(chat, messages)
            kl = (teacher.exp() * (teacher - student)).sum().item()
            nll = -student.gather(1, labels[:, None]).sum().item()
            found.append((kl, nll, (teacher.argmax(1) == student.argmax(1)).sum().item(), len(labels)))
        return found


def run(way: str, seed: int, student: Path, files: dict[int, Path], judge: Judge, work: Path, settings) -> Figures:
    """Train and measure one student."""
    import shutil

    from distill.plugins import make_plugin_manager
    from distill.training import TrainSettings, train

    loss, options, k = WAYS[way]
    out = work / f"run-{way.replace(' ', '')}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    train(
        TrainSettings(
            str(student), (files[k],), out, loss=loss, loss_options=options, seed=seed, epochs=settings.epochs,
            learning_rate=settings.learning_rate, per_device_train_batch_size=8,
            trainer_options={"warmup_steps": 4},
        ),
        make_plugin_manager(),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    found = judge.measure(out / "model")
    shutil.rmtree(out)
    tokens = sum(one[3] for one in found)
    return Figures(
        way, seed, sum(one[0] for one in found) / tokens, math.exp(sum(one[1] for one in found) / tokens),
        sum(one[2] for one in found) / tokens, seconds, [(kl, nll, count) for kl, nll, _, count in found],
    )  # fmt: skip


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of a 95 % confidence interval (Student's t over seeds)."""
    quantiles = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, quantiles[len(values)] * deviation / math.sqrt(len(values))


def table(work: Path) -> str:
    """The figures so far; differences to text only are paired by seed."""
    found: dict[str, dict[int, dict]] = {}
    for line in (work / "figures.jsonl").open():
        row = json.loads(line)
        found.setdefault(row["way"], {})[row["seed"]] = row
    base = found["text only"]
    lines = [
        "| trained towards | seeds | KL to the teacher | perplexity | agreement | KL less than text only |",
        "|---|---|---|---|---|---|",
    ]
    for way, runs in found.items():
        means = {
            name: sum(one[name] for one in runs.values()) / len(runs) for name in ("kl", "perplexity", "agreement")
        }
        both = sorted(set(runs) & set(base))
        gain, half = interval([base[seed]["kl"] - runs[seed]["kl"] for seed in both])
        shown = "" if way == "text only" else f"{gain:.3f} ± {half:.3f}"
        figures = f"{means['kl']:.3f} | {means['perplexity']:.1f} | {means['agreement']:.1%}"
        lines.append(f"| {way} | {len(runs)} | {figures} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("told", type=Path, nargs="?")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--teacher", default="smollm2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    settings = parser.parse_args()
    if settings.table:
        print(table(settings.table))
        return
    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager

    settings.work.mkdir(parents=True, exist_ok=True)
    teacher = Path(resolve_model(settings.teacher, make_plugin_manager()))
    student = pruned(settings.teacher, settings.work / f"student-{settings.layers}", settings.layers)
    files, held_out = split(settings.told, settings.work, settings.held_out, settings.rows)
    judge = Judge(teacher, held_out)
    done = settings.work / "figures.jsonl"
    known = {(row["way"], row["seed"]) for row in map(json.loads, done.open())} if done.exists() else set()
    for seed in range(settings.seeds):
        for way in settings.ways:
            if (way, seed) not in known:
                figures = run(way, seed, student, files, judge, settings.work, settings)
                with done.open("a") as file:
                    file.write(json.dumps(asdict(figures)) + "\n")
                numbers = f"KL {figures.kl:.3f}, perplexity {figures.perplexity:.1f}"
                print(f"{way}, seed {seed}: {numbers}, {figures.seconds:.0f} s")
    print(table(settings.work))


if __name__ == "__main__":
    main()
