"""One contestant of the training benchmark, in a process of its own. `run.py` starts it and says when it may step.

After each step it prints a line of JSON and waits for a line: so the contestants take their steps in turn, on one
machine in one run, and each has a peak memory of its own.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from transformers import BloomConfig, BloomForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

from distill import IGNORE_INDEX, Example, TrainJob, pad_batch
from distill.training.batching import data_loader

PAD = 3


def student(size: dict) -> BloomForCausalLM:
    """BLOOM's proportions with random weights; the embedding table is the output embedding too."""
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        n_layer=size["layers"],
        n_head=size["heads"],
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=PAD,
        use_cache=False,
    )
    return BloomForCausalLM(config)


def examples(settings: dict) -> list[Example]:
    """Random rows; prompts and answers of fixed or of log-normal lengths, labelled as `copy` or `masked`."""
    random = torch.Generator().manual_seed(1)
    rows = []
    for n in range(settings["rows"]):
        spread = math.exp(settings["sigma"] * float(torch.randn((), generator=random)) - settings["sigma"] ** 2 / 2)
        prompt, answer = max(2, round(settings["prompt"] * spread)), max(1, round(settings["answer"] * spread))
        ids = torch.randint(4, settings["size"]["vocab"], (prompt + answer,), generator=random).tolist()
        labels = ids if settings["labeler"] == "copy" else [IGNORE_INDEX] * prompt + ids[prompt:]
        rows.append(Example(ids, labels, str(n)))
    return rows


def peak_gib() -> float:
    """The most memory that was in use until now: the GPU's, or the process's where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Clock:
    """Tells of each step, and waits for leave to take the next."""

    def __init__(self) -> None:
        self.wait()

    def __call__(self, row: dict) -> None:
        """Take a log row; the last one of a Trainer has no loss."""
        if "loss" in row:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.worked
            self.tell({"seconds": seconds, "cpu": cpu, "loss": float(row["loss"]), "peak": peak_gib()})
            self.wait()

    def tell(self, row: dict) -> None:
        """One line to `run.py`."""
        print(json.dumps(row), file=sys.__stdout__, flush=True)

    def wait(self) -> None:
        """Until `run.py` says go."""
        sys.stdin.readline()
        self.began, self.worked = time.perf_counter(), time.process_time()


def run_distill(name: str, job: TrainJob, clock: Clock) -> None:
    """One of distill's trainers."""
    options = {"bf16": True} if name.endswith("-bf16") else {}
    if name == "distill-trl":
        from distill.builtin.trainers.trl_sft import TRLTrainer as Ours
    else:
        from distill.builtin.trainers.hugging_face import HuggingFaceTrainer as Ours
    Ours(options).train(job, clock)


def run_stock(name: str, job: TrainJob, clock: Clock) -> None:
    """A stock trainer on the same rows and labels, in the order that distill takes them where batches are the same."""
    from datasets import Dataset

    loader = data_loader(job)
    order = [row for batch in loader.batch_sampler for row in batch] if job.batch_tokens is None else None
    rows = [job.examples[row] for row in order] if order else job.examples
    data = Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})
    common = {
        "output_dir": str(job.output_dir),
        "num_train_epochs": job.epochs,
        "per_device_train_batch_size": job.per_device_train_batch_size,
        "learning_rate": job.learning_rate,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "bf16": torch.cuda.is_available() or name.endswith("-bf16"),  # as distill's trainers
        "use_cpu": not torch.cuda.is_available(),
    }
    if name == "trl":
        from trl import SFTConfig, SFTTrainer

        arguments = SFTConfig(
            **common,
            max_length=None,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        make = SFTTrainer
    else:
        arguments, make = TrainingArguments(**common), Trainer

    class Callback(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            clock(logs or {})

    if name == "liger":
        make = fused(make)
    trainer = make(
        model=job.model,
        args=arguments,
        train_dataset=data,
        data_collator=job.collate,
        processing_class=job.tokenizer,
        callbacks=[Callback()],
    )
    trainer.train()


def fused(trainer: type[Trainer]) -> type[Trainer]:
    """A trainer whose loss is Liger's fused projection and cross-entropy, which knows no BLOOM by itself."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    class Fused(trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")[:, 1:].flatten()
            causal = self.accelerator.unwrap_model(model)
            hidden = causal.transformer(**inputs)[0][:, :-1].flatten(0, 1)
            loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")(causal.lm_head.weight, hidden, labels)
            loss = loss / (num_items_in_batch or (labels != IGNORE_INDEX).sum())
            return (loss, None) if return_outputs else loss

    return Fused


def tokenizer():
    """A tokenizer that nobody uses: TRL asks for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, "<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def main() -> None:
    """Train, a step whenever it is told to."""
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        job = TrainJob(
            model=student(settings["size"]),
            tokenizer=tokenizer(),
            examples=examples(settings),
            collate=lambda rows: pad_batch(rows, PAD),
            output_dir=Path(scratch),
            epochs=1,
            per_device_train_batch_size=settings["batch"],
            gradient_accumulation_steps=1,
            learning_rate=1e-4,
            seed=0,
            batch_tokens=settings["batch_tokens"] if name == "distill-tokens" else None,
        )
        set_seed(0)
        clock = Clock()
        (run_distill if name.startswith("distill") else run_stock)(name, job, clock)


if __name__ == "__main__":
    main()
