"""What soft labels cost: bytes per token, preparing, a training step, capturing. Figures are CPU seconds.

    python benchmarks/soft_labels/costs.py told-20.jsonl [--only prepare|step|capture]

`told-20.jsonl` holds answers with their 20 likeliest tokens, of the teacher `smollm2`.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

TEACHER = "smollm2"


def prepare(path: Path) -> list[str]:
    """Aligning and mapping, on top of rendering, encoding and labelling."""
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.prepare import prepare_chunk
    from distill.dataset.settings import DataSettings
    from distill.plugins import make_plugin_manager
    from distill.transcripts.reader import read_transcripts

    manager = make_plugin_manager()
    rows = list(read_transcripts(path))
    seconds = {}
    for soft in (False, True, False, True):
        pipeline = make_pipeline(DataSettings(student=TEACHER), manager, soft_labels=soft)
        prepare_chunk(rows[:2], pipeline.encoder, pipeline.labeler, "masked", pipeline.soft)  # vocabularies, templates
        began = time.process_time()
        for _ in range(4):
            made = prepare_chunk(rows, pipeline.encoder, pipeline.labeler, "masked", pipeline.soft)
        seconds[soft] = time.process_time() - began
    trained = 4 * sum(one.trained_tokens for one in made.examples)
    sizes = [len(json.dumps(row.metadata["logprobs"], ensure_ascii=False).encode()) for row in rows]
    tokens = sum(len(row.metadata["logprobs"][0]["tokens"]) for row in rows)
    million = {soft: value * 1e6 / trained for soft, value in seconds.items()}
    return [
        f"bytes per token of `metadata.logprobs`, K = 20: {sum(sizes) / tokens:.0f}",
        f"preparing 1 million trained tokens, without soft labels: {million[False]:.0f} s of CPU",
        f"preparing 1 million trained tokens, with soft labels: {million[True]:.0f} s of CPU",
    ]


def step(path: Path, layers: int = 30, steps: int = 2, turns: int = 3) -> list[str]:
    """Training steps of a student, by loss; in turn, so that all meet the same machine."""
    import torch
    from transformers import AutoModelForCausalLM

    from distill.dataset.collate import PaddingCollator
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.prepare import prepare
    from distill.dataset.settings import DataSettings
    from distill.dataset.soft_columns import SoftCollator
    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager
    from distill.training.kernels import fast_training
    from distill.transcripts.reader import read_transcripts

    manager = make_plugin_manager()
    pipeline = make_pipeline(DataSettings(student=TEACHER), manager, soft_labels=True)
    made = prepare(read_transcripts(path), pipeline.encoder, pipeline.labeler, soft=pipeline.soft)
    rows = [{"input_ids": one.input_ids, "labels": one.labels, "soft": one.soft} for one in made.examples[: 8 * steps]]
    model = AutoModelForCausalLM.from_pretrained(resolve_model(TEACHER, manager), dtype=torch.float32)
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.train()
    plain, soft = PaddingCollator(pipeline.encoder.tokenizer.pad_token_id), None
    soft = SoftCollator(plain)
    losses = {
        "cross-entropy": None,
        "soft-labels": manager.losses.build("soft-labels"),
        "soft-labels, target=rest": manager.losses.build("soft-labels", {"target": "rest"}),
        "chunks": manager.losses.build("chunks"),
    }
    peaks: dict[str, int] = {}
    fastest: dict[tuple[str, int], float] = {}  # of several turns: what else the machine does counts least
    for _ in range(turns):
        for name, loss in losses.items():
            with fast_training(model, loss):
                for start in range(0, len(rows), 8):
                    began = time.process_time()
                    some = rows[start : start + 8]
                    tokens = [{key: one[key] for key in ("input_ids", "labels")} for one in some]
                    batch = plain(tokens) if loss is None else soft(some)
                    model(**batch, use_cache=False).loss.backward()
                    model.zero_grad()
                    took = time.process_time() - began
                    fastest[name, start] = min(took, fastest.get((name, start), took))
            peaks.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    seconds = {name: sum(took for (one, _), took in fastest.items() if one == name) for name in losses}
    base = seconds["cross-entropy"]
    lines = [f"step with {name}: {value / base:.2f} × cross-entropy" for name, value in seconds.items()]
    grown = max(peaks.values()) / peaks["cross-entropy"]
    return [*lines, f"peak memory with soft labels: {grown:.2f} × cross-entropy"]


def capture(path: Path, tokens: int = 12) -> list[str]:
    """Generating with and without the log probabilities."""
    from distill import Request
    from distill.builtin.teachers.transformers import TransformersOptions, build
    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager
    from distill.transcripts.reader import read_transcripts
    from distill.types import Params

    manager = make_plugin_manager()
    ref = resolve_model(TEACHER, manager)
    rows = [row for row, _ in zip(read_transcripts(path), range(16), strict=False)]
    params = Params(max_tokens=tokens, temperature=1.0, seed=1)
    requests = [Request(row.messages[:1], params=params) for row in rows]
    seconds: dict[int | None, float] = {}
    teachers = {k: build(TransformersOptions(logprobs=k), str(ref), manager) for k in (None, 20)}
    for turn in range(3):
        for k, teacher in teachers.items():
            began = time.process_time()
            teacher.ask_batch(requests)
            if turn:
                seconds[k] = seconds.get(k, 0.0) + time.process_time() - began
    return [f"generating with --logprobs 20: {seconds[20] / seconds[None]:.2f} × generating"]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("told", type=Path)
    parser.add_argument("--only", choices=["prepare", "step", "capture"])
    settings = parser.parse_args()
    for name, measure in (("prepare", prepare), ("step", step), ("capture", capture)):
        if settings.only in (None, name):
            print("\n".join(measure(settings.told)), flush=True)


if __name__ == "__main__":
    main()
