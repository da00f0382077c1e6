"""A training step on one GPU: distill against the stock trainers, and the paths that only a GPU has.

    python benchmarks/train/gpu.py            # BLOOM-560m's shape in bfloat16, about 10 minutes
    python benchmarks/train/gpu.py --quick    # a tiny model, on a CPU too: to see that it works

Prints tables for README.md, with the card's name. Model FLOPs utilization (MFU) is measured against the best matrix
product of this card, not against its data sheet.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import torch
from run import TINY, Contestant, flops, race, ratio

BLOOM_560M = {"vocab": 250880, "hidden": 1024, "layers": 24, "heads": 16}
LENGTH, BATCH = 512, 8
ANSWERS = [128, 512]
"""How many of 512 tokens are trained."""


def card() -> str:
    """What this runs on."""
    if not torch.cuda.is_available():
        return "no GPU"
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"


def best_product() -> float:
    """FLOP/s of this device's best matrix product, in bfloat16 on a GPU."""
    gpu = torch.cuda.is_available()
    device, dtype, size = ("cuda", torch.bfloat16, 8192) if gpu else ("cpu", torch.float32, 1024)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def steps(size: dict, length: int, trained: int, count: int, rate: float) -> None:
    """The table of one share of trained tokens."""
    settings = {
        "size": size, "labeler": "masked", "rows": BATCH * count, "sigma": 0.0,
        "prompt": length - trained, "answer": trained, "batch": BATCH, "threads": torch.get_num_threads(),
    }  # fmt: skip
    names = ["distill-hf", "distill-trl", "transformers", "trl"]
    if importlib.util.find_spec("liger_kernel") and torch.cuda.is_available():
        names.append("liger")
    else:
        print("\n`liger` is left out: it needs liger-kernel and a GPU.")
    found = race(names, settings)
    best = found[names[0]]
    need = flops(size, [(length, trained)] * BATCH)
    print(f"\n### {trained} of {length} tokens trained, batch {BATCH}\n")
    print("| | ms per step | tokens/s | time | peak GiB | peak memory | MFU | loss, first → last |")
    print("|---|---|---|---|---|---|---|---|")
    for name, one in found.items():
        print(_line(name, one, best, BATCH * length, need / rate), flush=True)


def _line(name: str, one: Contestant, best: Contestant, tokens: int, ideal: float) -> str:
    seconds, last = median(one.timed), one.rows[-1]
    losses = f"{one.rows[0]['loss']:.5f} → {last['loss']:.5f}"
    cells = [
        f"`{name}`",
        f"{1000 * seconds:.0f}",
        f"{tokens / seconds:.0f}",
        f"{ratio(one.timed, best.timed):.2f} ×",
        f"{last['peak']:.2f}",
        f"{last['peak'] / best.rows[-1]['peak']:.2f} ×",
        f"{ideal / seconds:.0%}",
        losses,
    ]
    return f"| {' | '.join(cells)} |"


def paths(rows: int) -> None:
    """Train through the paths that the table does not take, with the real command's own function."""
    import distill
    from distill.testing.exporters import tiny_student

    print("\n### Other paths\n\n| | |\n|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        student = tiny_student(Path(scratch) / "student")
        data = Path(scratch) / "data.jsonl"
        chat = '{{"messages": [{{"role": "user", "content": "{0}?"}}, {{"role": "assistant", "content": "{0}!"}}]}}\n'
        data.write_text("".join(chat.format(f"word {n}") for n in range(rows)))

        def train(name: str, **options: object) -> None:
            folder = Path(scratch) / name
            run = distill.train(data, student=str(student), out=folder, epochs=2, progress=False, **options)
            first, *_, last = [row["loss"] for row in run.metrics() if "loss" in row]
            print(f"| {name} | loss {first:.3f} → {last:.3f} |", flush=True)

        attempts: dict[str, Callable[[], None]] = {
            "packing": lambda: train("packing", packing=True),
            "LoRA": lambda: train("LoRA", lora=True),
            "QLoRA": lambda: train("QLoRA", qlora=True),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
            except distill.DistillError as error:
                print(f"| {name} | not here: {error.message} |", flush=True)


@click.command()
@click.option("--quick", is_flag=True, help="A tiny model, to see that it works.")
@click.option("--steps", "count", default=20, show_default=True, help="Steps of each contestant; two do not count.")
def main(quick: bool, count: int) -> None:
    """Print the tables."""
    size, length, count = (TINY, 64, 4) if quick else (BLOOM_560M, LENGTH, count)
    rate = best_product()
    print(f"{card()}; torch {torch.__version__}; best matrix product {rate / 1e12:.2f} TFLOP/s; BLOOM with {size}")
    for trained in ANSWERS:
        steps(size, length, trained * length // LENGTH, count, rate)
    paths(32)


if __name__ == "__main__":
    main()
