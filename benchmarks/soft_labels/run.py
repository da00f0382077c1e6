"""How much a teacher's likeliest tokens are worth: one student, trained on the same answers towards more or less of it.

    python benchmarks/soft_labels/prompts.py 352 > prompts.jsonl
    distill collect prompts.jsonl --teacher smollm2 --logprobs 1024 --temperature 1 --seed 1 --max-tokens 80 \
        -T batch_size=88 --out told.jsonl
    python benchmarks/soft_labels/prompts.py 500 | tail -148 > fresh.jsonl
    distill collect fresh.jsonl --teacher smollm2 --logprobs 20 --temperature 1 --seed 2 --max-tokens 80 \
        -T batch_size=74 --out held-out.jsonl
    python benchmarks/soft_labels/run.py told.jsonl held-out.jsonl --work pruned --seeds 3
    python benchmarks/soft_labels/run.py told.jsonl held-out.jsonl --work cut --seeds 2 --rows 192 --student cut \
        --greedy 40

The student is SmolLM2-135M-Instruct without a third of its layers, with the teacher's tokenizer; or, with
`--student cut`, with a tokenizer of 8,000 tokens instead (`cut.py`). Every way takes the same steps over the same
answers. `python benchmarks/soft_labels/run.py --table DIR` prints the table of the results so far.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "soft-labels"))

from cut import cut
from prune import pruned

WAYS = {
    "text only": ("cross-entropy", {}, 0),
    "K = 5": ("soft-labels", {}, 5),
    "K = 20": ("soft-labels", {}, 20),
    "K = 64": ("soft-labels", {}, 64),
    "K = 1024": ("soft-labels", {}, 1024),
    "K = 20, rest": ("soft-labels", {"target": "rest"}, 20),
    "chunks": ("chunks", {}, 0),
    "chunks, mix 0.5": ("chunks", {"mix": 0.5}, 0),
}
STUDENTS = {
    "pruned": ["text only", "K = 5", "K = 20", "K = 64", "K = 1024"],
    "cut": ["text only", "chunks", "chunks, mix 0.5"],
}


@dataclass(frozen=True)
class Answer:
    """A student's figures for one held-out answer: sums over its tokens.

    Attributes:
        kl: KL(teacher, student) over the whole vocabulary, in nats; None where the vocabularies differ.
        nll: negative log-likelihood, in nats.
        agreed: places where both find the same token likeliest; None where the vocabularies differ.
        tokens: how many the student reads, the end-of-turn token included.
        size: the answer's bytes.
        same: whether the student's greedy answer to the prompt is the teacher's, word for word; None: not asked.
    """

    kl: float | None
    nll: float
    agreed: int | None
    tokens: int
    size: int
    same: bool | None


@dataclass(frozen=True)
class Figures:
    """Of one student."""

    way: str
    seed: int
    seconds: float
    answers: list[Answer]


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


def finished(path: Path) -> list[dict]:
    """The rows that were not cut, in an order that does not depend on how they were collected."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    rows = sorted((row for row in rows if row["metadata"]["finish_reason"] == "stop"), key=lambda row: row["id"])
    random.Random(0).shuffle(rows)
    return rows


def training_files(told: Path, work: Path, ways: list[str], count: int) -> dict[int, Path]:
    """One file per K."""
    files = {}
    for k in sorted({WAYS[way][2] for way in ways}):
        files[k] = work / f"train-{k}.jsonl"
        if not files[k].exists():
            rows = finished(told)[:count]
            text = "".join(json.dumps(with_k(row, k), ensure_ascii=False) + "\n" for row in rows)
            files[k].write_text(text, encoding="utf-8")
    return files


class Judge:
    """Measures students against the teacher's own distribution on held-out answers."""

    def __init__(self, teacher: Path, rows: list[dict], greedy: int):
        from distill import Message

        model = load(teacher)
        self._conversations = [[Message(**message) for message in row["messages"]] for row in rows]
        self._vocabulary = model.encoder.tokenizer.get_vocab()
        self._told = [self._logprobs(model, one)[0] for one in self._conversations]
        self._asked = greedy
        self._greedy = self._answers(model)

    def _logprobs(self, chat, messages):
        import torch

        encoded = chat.encoder.encode(messages)
        ids = torch.tensor([encoded.input_ids])
        at = torch.tensor([n for n, wrote in enumerate(encoded.assistant_mask) if wrote])
        with torch.inference_mode():
            logits = chat.model(ids).logits[0, at - 1].float().log_softmax(-1)
        return logits, ids[0, at]

    def _answers(self, chat) -> list[str]:
        prompts = [messages[:-1] for messages in self._conversations[: self._asked]]
        found = []
        for start in range(0, len(prompts), 32):
            found += [one.text for one in chat.generate(prompts[start : start + 32], max_tokens=60)]
        return found

    def measure(self, folder: Path) -> list[Answer]:
        """Per held-out answer."""
        chat, found = load(folder), []
        alike = chat.encoder.tokenizer.get_vocab() == self._vocabulary
        greedy = self._answers(chat)
        for n, (messages, teacher) in enumerate(zip(self._conversations, self._told, strict=True)):
            student, labels = self._logprobs(chat, messages)
            kl = (teacher.exp() * (teacher - student)).sum().item() if alike else None
            agreed = int((teacher.argmax(1) == student.argmax(1)).sum()) if alike else None
            nll = -student.gather(1, labels[:, None]).sum().item()
            same = greedy[n] == self._greedy[n] if n < len(greedy) else None
            found.append(Answer(kl, nll, agreed, len(labels), len(messages[-1].content.encode()), same))
        return found


def load(folder: Path):
    """A model in its own chat format."""
    from distill import ChatModel, make_formatter

    return ChatModel.load(str(folder), make_formatter("chat-template"), "chat-template", "cpu")


def run(way: str, seed: int, student: Path, files: dict[int, Path], judge: Judge, work: Path, settings) -> Figures:
    """Train and measure one student."""
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
    answers = judge.measure(out / "model")
    shutil.rmtree(out)
    return Figures(way, seed, seconds, answers)


def metrics(answers: list[dict]) -> dict[str, float]:
    """Over all answers: a mean per token, per byte or per answer."""
    tokens, size = sum(one["tokens"] for one in answers), sum(one["size"] for one in answers)
    nll = sum(one["nll"] for one in answers)
    found = {"perplexity": math.exp(nll / tokens), "bits per byte": nll / math.log(2) / size}
    if answers[0]["kl"] is not None:
        found["KL"] = sum(one["kl"] for one in answers) / tokens
        found["agreement"] = sum(one["agreed"] for one in answers) / tokens
    asked = [one["same"] for one in answers if one["same"] is not None]
    if asked:
        found["exact match"] = sum(asked) / len(asked)
    return found


def gain(ours: list[list[dict]], base: list[list[dict]], metric: str) -> tuple[float, float, float]:
    """How much lower than text only, and a 95 % bootstrap interval over seeds and answers, paired in both."""

    def difference(seeds: list[int], rows: list[int]) -> float:
        pairs = [(metrics([runs[seed][row] for row in rows])[metric]) for runs in (base, ours) for seed in seeds]
        half = len(seeds)
        return sum(pairs[:half]) / half - sum(pairs[half:]) / half

    chance = random.Random(0)
    seeds, rows = range(len(ours)), range(len(ours[0]))
    drawn = sorted(
        difference(chance.choices(seeds, k=len(seeds)), chance.choices(rows, k=len(rows))) for _ in range(2000)
    )
    return difference(list(seeds), list(rows)), drawn[49], drawn[1949]


def table(work: Path) -> str:
    """The figures so far; only seeds that every way has."""
    found: dict[str, dict[int, list[dict]]] = {}
    for line in (work / "figures.jsonl").open():
        row = json.loads(line)
        found.setdefault(row["way"], {})[row["seed"]] = row["answers"]
    seeds = sorted(set.intersection(*map(set, found.values())))
    runs = {way: [by_seed[seed] for seed in seeds] for way, by_seed in found.items()}
    names = list(metrics(runs["text only"][0]))
    metric = "KL" if "KL" in names else "bits per byte"
    count, answers = len(seeds), runs["text only"][0]
    lines = [
        f"{count} seeds, {len(answers)} held-out answers, {sum(one['tokens'] for one in answers)} tokens", "",
        f"| trained towards | {' | '.join(names)} | {metric} less than text only |",
        "|---" * (len(names) + 2) + "|",
    ]  # fmt: skip
    for way, of_seeds in runs.items():
        each = [metrics(one) for one in of_seeds]
        means = " | ".join(f"{sum(one[name] for one in each) / count:.3f}" for name in names)
        less, low, high = gain(of_seeds, runs["text only"], metric)
        shown = "" if way == "text only" else f"{less:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {way} | {means} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("told", type=Path, nargs="?")
    parser.add_argument("held_out", type=Path, nargs="?")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--teacher", default="smollm2")
    parser.add_argument("--student", choices=list(STUDENTS), default="pruned")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--held-out-rows", type=int, default=120)
    parser.add_argument("--greedy", type=int, default=0, help="held-out questions that the students answer, too")
    parser.add_argument("--ways", nargs="*")
    settings = parser.parse_args()
    if settings.table:
        print(table(settings.table))
        return
    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager

    work, ways = settings.work, settings.ways or STUDENTS[settings.student]
    work.mkdir(parents=True, exist_ok=True)
    teacher = Path(resolve_model(settings.teacher, make_plugin_manager()))
    if settings.student == "cut":
        student = cut(settings.teacher, work / "student", 8000)
    else:
        student = pruned(settings.teacher, work / "student", 20)
    files = training_files(settings.told, work, ways, settings.rows)
    judge = Judge(teacher, finished(settings.held_out)[: settings.held_out_rows], settings.greedy)
    done = work / "figures.jsonl"
    known = {(row["way"], row["seed"]) for row in map(json.loads, done.open())} if done.exists() else set()
    for seed in range(settings.seeds):
        for way in ways:
            if (way, seed) not in known:
                figures = run(way, seed, student, files, judge, work, settings)
                with done.open("a") as file:
                    file.write(json.dumps(asdict(figures)) + "\n")
                print(way, seed, metrics(asdict(figures)["answers"]), f"{figures.seconds:.0f} s", flush=True)
    print(table(work))


if __name__ == "__main__":
    main()
