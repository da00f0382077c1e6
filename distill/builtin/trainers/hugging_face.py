"""transformers' Trainer on labelled examples, and what it shares with TRL's, which is one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from distill import DistillError, TrainJob, TrainResult, UsageError, unknown_name

OnLog = Callable[[Mapping[str, float]], None]

# Settings that have a flag of their own, and where to say them.
_FLAGS = {
    "output_dir": "--out",
    "num_train_epochs": "--epochs",
    "per_device_train_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--accumulation",
    "learning_rate": "--learning-rate",
    "seed": "--seed",
    "max_length": "--max-length",
}


class HuggingFaceTrainer:
    """Trains with transformers' Trainer.

    Args:
        options: TrainingArguments fields.

    Raises:
        UsageError: an unknown field (with the nearest one), or one that has a flag of its own.
    """

    def __init__(self, options: Mapping[str, Any]):
        check_fields(options, TrainingArguments, "hf")
        self.options = dict(options)

    def train(self, job: TrainJob, on_log: OnLog) -> TrainResult:
        """Train `job.model`; see `distill.Trainer`."""
        return fit(Trainer, make_arguments(TrainingArguments, job, self.options), job, on_log)


def check_fields(options: Mapping[str, Any], arguments: type, trainer: str) -> None:
    """Refuse options that the arguments class does not have, or that have a flag of their own."""
    known = {field.name for field in dataclasses.fields(arguments) if field.init}
    for key in options:
        if key in _FLAGS:
            raise UsageError(f"trainer {trainer!r}: {key} is set by {_FLAGS[key]}")
        if key not in known:
            raise unknown_name(f"option of trainer {trainer!r}:", key, known)


def make_arguments(arguments: type, job: TrainJob, options: Mapping[str, Any], **fixed: Any) -> Any:
    """Build TrainingArguments, or a subclass: the job's settings, defaults for this tool, then the user's options."""
    import torch

    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    settings = {
        "output_dir": str(job.output_dir),
        "num_train_epochs": job.epochs,
        "per_device_train_batch_size": job.per_device_train_batch_size,
        "gradient_accumulation_steps": job.gradient_accumulation_steps,
        "learning_rate": job.learning_rate,
        "seed": job.seed,
        "bf16": bf16,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN loss is shown as 0.0
        "report_to": "none",
        "save_strategy": "no",
        "remove_unused_columns": False,
        _checkpointing(arguments): False,  # TRL turns it on by default, which costs a third more time
        **fixed,
        **options,
    }
    try:
        return arguments(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"the trainer refuses its settings: {error}") from error


def _checkpointing(arguments: type) -> str:
    names = {field.name for field in dataclasses.fields(arguments)}  # renamed in transformers 5.2x
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def fit(trainer_class: type[Trainer], arguments: TrainingArguments, job: TrainJob, on_log: OnLog) -> TrainResult:
    """Train with a Trainer class; each log line goes to `on_log`, and nothing to standard output."""
    from datasets import Dataset

    columns = {
        "input_ids": [example.input_ids for example in job.examples],
        "labels": [example.labels for example in job.examples],
    }
    trainer = trainer_class(
        model=job.model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        data_collator=job.collate,
        processing_class=job.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Log(on_log))
    output = trainer.train()
    return TrainResult(output.global_step, output.training_loss, output.metrics)


class _Log(TrainerCallback):
    """Passes on what the Trainer logs, and stops at the first loss that is no number."""

    def __init__(self, sink: OnLog):
        self._sink = sink

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Called by the Trainer after each logging step, and once at its end with the totals."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(float(logs["loss"])):
            raise DistillError(
                f"the loss is {logs['loss']} at step {state.global_step}; training stopped, no model was written",
                "lower --learning-rate, or look at the data with `distill show`",
            )
        row = {key: float(value) for key, value in logs.items() if isinstance(value, (int, float, str))}
        self._sink({"step": state.global_step, "max_steps": state.max_steps, **row})
