"""Compare distill's training step with the stock trainers', and print a table.

python run.py [--quick]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import click

BLOOM = {"vocab": 62720, "hidden": 512, "layers": 12, "heads": 8}
TINY = {"vocab": 2000, "hidden": 64, "layers": 2, "heads": 4}


class Contestant:
    """A process that trains a step when told to."""

    def __init__(self, name: str, settings: dict):
        self.name = name
        self.rows: list[dict] = []
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}  # a waiting thread takes nobody's time
        if name.startswith("distill"):
            environment["THP_MEM_ALLOC_ENABLE"] = "1"  # as the command sets it
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("contestant.py")), name, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("VERBOSE") else None,
            text=True,
            env=environment,
        )

    def step(self) -> bool:
        """Let it take a step; False where it has none left."""
        if self._process.poll() is not None:
            return False
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            error = self._process.stderr.read() if self._process.stderr else ""
            if self._process.wait():
                raise SystemExit(f"{self.name} failed:\n{error[-2000:]}")
            return False
        self.rows.append(json.loads(line))
        return True


def race(names: list[str], settings: dict, warm_up: int = 2) -> dict[str, Contestant]:
    """Let the contestants take all their steps, in turn; the first ones are not counted."""
    contestants = [Contestant(name, settings) for name in names]
    racing = True
    while racing:
        racing = any([contestant.step() for contestant in contestants])  # noqa: C419 (all of them step)
    for contestant in contestants:
        contestant.timed = [row["seconds"] for row in contestant.rows[warm_up:]]
        contestant.worked = [row["cpu"] for row in contestant.rows[warm_up:]]
    return {contestant.name: contestant for contestant in contestants}


def matmul_rate(size: dict, threads: int) -> tuple[float, float]:
    """The machine's own rate, FLOP/s and FLOP per second of CPU: the better of the two shapes a step is made of."""
    code = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
best = best_cpu = 0.0
for rows, inner, columns in ((1024, int(sys.argv[2]), 4 * int(sys.argv[2])), (256, int(sys.argv[2]), int(sys.argv[3]))):
    a, b = torch.randn(rows, inner), torch.randn(columns, inner)
    out = torch.empty(rows, columns)
    for _ in range(12):
        began, worked = time.perf_counter(), time.process_time()
        torch.mm(a, b.T, out=out)
        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - began))
        best_cpu = max(best_cpu, 2 * rows * inner * columns / (time.process_time() - worked))
print(best, best_cpu)
"""
    words = [sys.executable, "-c", code, str(threads), str(size["hidden"]), str(size["vocab"])]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}  # as the contestants have it
    environment.pop("OMP_NUM_THREADS", None)
    out = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    wall, cpu = map(float, out.split())
    return wall, cpu


def flops(size: dict, lengths: list[tuple[int, int]]) -> float:
    """Of one training step, three times the forward pass: all tokens through the layers, trained ones through the head.

    Args:
        size: of the model.
        lengths: of each row: tokens, and trained tokens.
    """
    hidden, layers, vocab = size["hidden"], size["layers"], size["vocab"]
    total = 0.0
    for tokens, trained in lengths:
        total += layers * (24 * hidden * hidden * tokens + 4 * tokens * tokens * hidden) + 2 * hidden * vocab * trained
    return 3 * total


def table(title: str, found: dict[str, Contestant], tokens: float, ours: str) -> None:
    """Print one comparison; ratios are medians over steps that were taken one after the other."""
    print(f"\n### {title}\n")
    print("| | s a step | tokens/s | time | CPU time | peak GiB | peak memory | loss, first → last |")
    print("|---|---|---|---|---|---|---|---|")
    best = found[ours]
    for name, one in found.items():
        time, cpu = ratio(one.timed, best.timed), ratio(one.worked, best.worked)
        peak, losses = one.rows[-1]["peak"], [row["loss"] for row in one.rows]
        print(
            f"| `{name}` | {median(one.timed):.2f} | {tokens / median(one.timed):.0f} | {time:.2f} × | {cpu:.2f} × | "
            f"{peak:.2f} | {peak / best.rows[-1]['peak']:.2f} × | {losses[0]:.6f} → {losses[-1]:.6f} |",
            flush=True,
        )


def ratio(theirs: list[float], ours: list[float]) -> float:
    """How much more they take."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))


def fixed(size: dict, labeler: str, steps: int, threads: int, names: list[str]) -> dict[str, Contestant]:
    """Prompts of 96 and answers of 32 tokens, batch 8: no padding, the same batches for all."""
    settings = {
        "size": size, "labeler": labeler, "rows": 8 * steps, "sigma": 0.0,
        "prompt": 96, "answer": 32, "batch": 8, "threads": threads,
    }  # fmt: skip
    found = race(names, settings)
    table(f"`{labeler}`: prompts of 96 tokens, answers of 32, batch 8", found, 8 * 128, names[0])
    losses = [[row["loss"] for row in one.rows] for one in found.values()]
    apart = max(abs(a - b) for others in losses[1:] for a, b in zip(losses[0], others, strict=True))
    print(f"\nThe losses of a step differ by {apart:.1e} at most.")
    return found


@click.command()
@click.option("--quick", is_flag=True, help="A tiny model, to see that it works.")
@click.option("--steps", default=10, show_default=True, help="Steps of each contestant; the first two do not count.")
@click.option("--only", type=click.Choice(["masked", "copy", "lengths"]), help="One of the tables.")
def main(quick: bool, steps: int, only: str | None) -> None:
    """Print the tables of README.md."""
    size, threads = (TINY if quick else BLOOM), os.cpu_count() or 1
    print(f"BLOOM with {size}, float32, {threads} threads")
    if only in (None, "masked"):
        found = fixed(size, "masked", steps, threads, ["distill-hf", "distill-trl", "transformers", "trl"])
        limit(size, found["distill-hf"], threads)
        fixed(size, "masked", steps, threads, ["distill-bf16", "distill-hf", "transformers-bf16"])
    if only in (None, "copy"):
        fixed(size, "copy", steps, threads, ["distill-hf", "transformers", "trl"])
    if only in (None, "lengths"):
        log_normal(size, steps, threads)


def limit(size: dict, one: Contestant, threads: int) -> None:
    """Print how near the steps come to what the machine's matrix products allow.

    On a busy machine the share of CPU time says more: a step waits for its turn more often than one product does.
    """
    rate, cpu_rate = matmul_rate(size, threads)
    need = flops(size, [(128, 32)] * 8)
    for what, seconds in (("median", median(one.timed)), ("fastest", min(one.timed))):
        print(
            f"\nThe {what} step of `{one.name}` does {need / seconds / 1e9:.0f} GFLOP/s of what trained tokens need, "
            f"{need / seconds / rate:.0%} of the machine's best matrix product ({rate / 1e9:.0f} GFLOP/s)."
        )
    share = need / median(one.worked) / cpu_rate
    print(f"By CPU time it is {share:.0%} ({cpu_rate / 1e9:.0f} GFLOP per second of a core).")


def log_normal(size: dict, steps: int, threads: int) -> None:
    """Log-normal lengths: batches of 8 at random against batches of as many tokens."""
    settings = {
        "size": size, "labeler": "masked", "rows": 8 * 3 * steps, "sigma": 0.8,
        "prompt": 96, "answer": 32, "batch": 8, "batch_tokens": 1536, "threads": threads,
    }  # fmt: skip
    found = race(["distill-tokens", "distill-hf", "transformers"], settings, warm_up=0)
    print("\n### `masked`: log-normal lengths (σ 0.8), the same rows once\n")
    print("| | batches | s an epoch | time | CPU time | peak GiB |")
    print("|---|---|---|---|---|---|")
    best = found["distill-tokens"]
    for name, one in found.items():
        print(
            f"| `{name}` | {len(one.rows)} | {sum(one.timed):.1f} | {sum(one.timed) / sum(best.timed):.2f} × | "
            f"{sum(one.worked) / sum(best.worked):.2f} × | {one.rows[-1]['peak']:.2f} |"
        )


if __name__ == "__main__":
    main()
