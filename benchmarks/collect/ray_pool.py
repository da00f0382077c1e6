"""A pool of Ray actors against the plain local teacher: `python benchmarks/collect/ray_pool.py` prints the table.

The teacher is a small random Llama that writes 32 tokens per answer, one CPU thread per copy. Starting Python, Ray and
the model is left out: rows per second count from the first batch that is written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from run import ROOT, WORK, fresh, prompts

from distill.testing import bloom_tokenizer, save_student

BATCH = 8
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def teacher(folder: Path) -> Path:
    """A random Llama of some 20 million weights, with a tokenizer."""
    if folder.exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = bloom_tokenizer()
    size = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8}
    tokenizer.chat_template = TEMPLATE
    return save_student(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size)), tokenizer, folder)


def rate(name: str, more: list[str], path: Path, count: int) -> float:
    """Rows per second of one collection, from its first batch on."""
    out = fresh("ray.jsonl")
    words = [sys.executable, "-m", "distill", "--plugin", ROOT / "plugins/distill-ray/distill_ray.py", "collect", path]
    words += ["--teacher", name, "--out", out, "--max-tokens", 32, "--concurrency", 8 * BATCH, *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DISTILL_PLUGINS": ""}
    log = (WORK / "ray.log").open("w")
    process = subprocess.Popen([str(word) for word in words], env=env, stderr=log, stdout=log)
    times: list[tuple[float, int]] = []
    while not times or times[-1][1] < count:
        if process.poll() is not None and times and times[-1][1] < count:
            raise SystemExit((WORK / "ray.log").read_text())
        rows = out.read_bytes().count(b"\n") if out.exists() else 0
        if rows and (not times or rows > times[-1][1]):
            times.append((time.perf_counter(), rows))
        elif process.poll() is not None and not rows:
            raise SystemExit((WORK / "ray.log").read_text())
        time.sleep(0.005)
    process.wait()
    (first, there), (last, all_rows) = times[0], times[-1]
    return (all_rows - there) / (last - first)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    model, path = teacher(WORK / "ray-teacher"), prompts(given.rows)
    options = ["-T", f"batch_size={BATCH}"]
    kinds = {
        "transformers": (f"transformers:{model}", options),
        "ray, 1 replica": (f"ray:transformers:{model}", options),
        "ray, 2 replicas": (f"ray:transformers:{model}", [*options, "-T", "replicas=2"]),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(given.rounds):
        for kind, (name, more) in kinds.items():
            found[kind].append(rate(name, more, path, given.rows))
            print(f"round {number + 1}: {kind} {found[kind][-1]:.1f} rows/s", file=sys.stderr, flush=True)
    print(f"\n{given.rows} prompts, {given.rounds} rounds by turns, medians:\n")
    print("| | rows/s | ÷ transformers, round by round |\n|---|---|---|")
    for kind, rates in found.items():
        ratios = [ours / plain for ours, plain in zip(rates, found["transformers"], strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {kind} | {statistics.median(rates):.1f} | {shown} |")


if __name__ == "__main__":
    main()
