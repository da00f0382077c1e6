"""Compare the layouts of a batch: padded, packed with transformers' mask, packed with an attention row by row.

python packing.py [--quick] [--only rows|prefixes]

A forward and backward pass of distill's head over the same batches, in turn, on random weights of SmolLM2-135M's
proportions. "--packing" is what `train --packing` does on a CPU, where each row attends by itself; "--shared-prefix" is
what `train --shared-prefix auto` makes of the same rows.
"""

from __future__ import annotations

import functools
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import click
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distill import IGNORE_INDEX, Example, fast_training, pad_batch
from distill.training.batching import LengthBatchSampler
from distill.training.packing import pack, packed_attention, verify_packing
from distill.training.shared_prefix import SharedPrefixCollator, verify_shared_prefix

SMOLLM2 = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6,  # of its 30, all alike
    "num_attention_heads": 9, "num_key_value_heads": 3,
}  # fmt: skip
QUICK = {**SMOLLM2, "vocab_size": 2000, "num_hidden_layers": 2}


def student(size: dict) -> LlamaForCausalLM:
    """Random weights, tied as SmolLM2's."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=True, use_cache=False, pad_token_id=0)).train()


def chats(rows: int, middle: int, vocabulary: int) -> list[Example]:
    """Log-normal lengths; the last quarter of a row is the answer."""
    random = torch.Generator().manual_seed(1)
    made = []
    for n in range(rows):
        length = min(1024, max(8, round(middle * math.exp(0.8 * float(torch.randn((), generator=random))))))
        ids = torch.randint(4, vocabulary, (length,), generator=random).tolist()
        made.append(Example(ids, [IGNORE_INDEX] * (length - length // 4) + ids[length - length // 4 :], str(n)))
    return made


def layouts(kind: str, size: dict, batch: int, middle: int, count: int) -> Iterator[dict]:
    """The batches of one contestant."""
    if kind in ("whole prompts", "--shared-prefix"):
        collate = functools.partial(pad_batch, pad_token_id=0)
        if kind == "--shared-prefix":
            collate = SharedPrefixCollator(collate, size["hidden_size"])
        for rows in prefixed(size, count, batch, middle):
            yield collate([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
        return
    examples = chats(40 * count, middle, size["vocab_size"])
    lengths = [len(row.input_ids) for row in examples]
    words = {"batch_tokens": batch} if batch > 64 else {}
    for rows in list(LengthBatchSampler(lengths, batch_size=batch, **words))[:count]:
        padded = pad_batch([{"input_ids": examples[n].input_ids, "labels": examples[n].labels} for n in rows], 0)
        yield padded if kind == "padded" else pack(padded)


def prefixed(size: dict, count: int, rows: int, shared: int) -> Iterator[list[Example]]:
    """Batches of answers to one prompt of `shared` tokens, each of about 64 tokens, which are trained."""
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
        beginning = torch.randint(4, size["vocab_size"], (shared,), generator=random).tolist()
        batch = []
        for n in range(rows):
            length = int(torch.randint(56, 73, (), generator=random))
            own = torch.randint(4, size["vocab_size"], (length,), generator=random).tolist()
            ids = [*beginning, *own]
            batch.append(Example(ids, [IGNORE_INDEX] * shared + own, str(n)))
        yield batch


def contestant(kind: str, settings: dict) -> None:
    """Take a step for each line read; tell of it in a line."""
    torch.set_num_threads(settings["threads"])
    model = student(settings["size"])
    batches = list(layouts(kind, settings["size"], settings["batch"], settings["middle"], settings["count"]))
    if kind != "padded":
        assert verify_packing(model, 0) is None
    if kind == "--shared-prefix":
        assert verify_shared_prefix(model, 0) is None
    with packed_attention(model) if kind == "--packing" else nullcontext(True) as by_row, fast_training(model):
        assert by_row
        for batch in batches:
            sys.stdin.readline()
            model.zero_grad()
            began, worked = time.perf_counter(), time.process_time()
            loss = model(**batch).loss
            loss.backward()
            spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
            norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            told = {"loss": loss.item(), "norm": norm.item(), "peak": peak, "through": batch["input_ids"].numel()}
            print(json.dumps({**spent, **told}), flush=True)


def race(kinds: list[str], settings: dict) -> dict[str, list[dict]]:
    """Let each take its steps in turn, in a process of its own; the first step does not count."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}  # a waiting thread takes nobody's time
    words = [[sys.executable, str(Path(__file__)), "--contestant", kind, json.dumps(settings)] for kind in kinds]
    running = [
        subprocess.Popen(word, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for word in words
    ]
    rows: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for _ in range(settings["count"]):
        for kind, process in zip(kinds, running, strict=True):
            process.stdin.write("\n")
            process.stdin.flush()
            rows[kind].append(json.loads(process.stdout.readline()))
    for process in running:
        process.stdin.close()
        process.wait()
    return {kind: steps[1:] for kind, steps in rows.items()}


def table(title: str, kinds: list[str], settings: dict) -> None:
    """Print one comparison; the first contestant is the measure."""
    found = race(kinds, settings)
    print(f"\n### {title}\n\n| | tokens a step | s a step | time | CPU time | peak GiB | loss, first → last |")
    print("|---|---|---|---|---|---|---|")
    best = found[kinds[0]]

    def ratio(steps: list[dict], of: Callable[[dict], float]) -> float:
        return median(of(one) / of(other) for one, other in zip(steps, best, strict=True))

    for kind, steps in found.items():
        middle = median(step["seconds"] for step in steps)
        time_, cpu = ratio(steps, lambda step: step["seconds"]), ratio(steps, lambda step: step["cpu"])
        through = sum(step["through"] for step in steps) / len(steps)
        losses = f"{steps[0]['loss']:.6f} → {steps[-1]['loss']:.6f}"
        print(
            f"| {kind} | {through:.0f} | {middle:.2f} | {time_:.2f} × | {cpu:.2f} × | {steps[-1]['peak']:.2f} "
            f"| {losses} |",
            flush=True,
        )
    apart = max(
        abs(one[key] / other[key] - 1) for steps in found.values() for one, other in zip(steps, best, strict=True)
        for key in ("loss", "norm")
    )  # fmt: skip
    print(f"\nLosses and the gradients' norms differ by {apart:.1e} of themselves at most.", flush=True)


@click.command()
@click.option("--quick", is_flag=True, help="A small model, to see that it works.")
@click.option("--steps", default=7, show_default=True, help="Of each contestant; the first does not count.")
@click.option("--only", type=click.Choice(["rows", "prefixes"]), help="One of the comparisons.")
@click.option("--threads", default=os.cpu_count(), show_default="all cores")
@click.option("--contestant", "one", nargs=2, hidden=True)
def main(quick: bool, steps: int, only: str | None, threads: int, one: tuple[str, str] | None) -> None:
    """Print the tables of README.md."""
    if one is not None:
        contestant(one[0], json.loads(one[1]))
        return
    settings = {"size": QUICK if quick else SMOLLM2, "threads": threads, "count": steps}
    print(f"Llama with {settings['size']}, float32, {settings['threads']} threads")
    kinds = ["padded", "packed, one mask", "--packing"]
    if only != "prefixes":
        table("`--batch-tokens 1536`", kinds, {**settings, "batch": 1536, "middle": 100})
        table("batches of 8 at random", kinds, {**settings, "batch": 8, "middle": 100})
    if only != "rows":
        kinds = ["whole prompts", "--shared-prefix"]
        for prompt in (512, 200, 40):
            title = f"8 answers of about 64 tokens to a prompt of {prompt}"
            table(title, kinds, {**settings, "batch": 8, "middle": prompt})


if __name__ == "__main__":
    main()
