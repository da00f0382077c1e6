"""transformers' Trainer on labelled examples, and what it shares with TRL's, which is one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from distill import (
    DistillError,
    TrainJob,
    TrainResult,
    UsageError,
    data_loader,
    supervised_only,
    unknown_name,
)

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
        return fit(_Trainer, make_arguments(TrainingArguments, job, self.options), job, on_log)


class OwnBatches:
    """Makes a Trainer take its batches from `distill.data_loader`, unless its options ask for another sampling."""

    job: TrainJob

    def get_train_dataloader(self) -> Any:
        """The batches of this process, on the CPU; the Trainer moves them."""
        args = self.args
        if args.train_sampling_strategy != "random" or args.dataloader_drop_last:
            return super().get_train_dataloader()
        loader = data_loader(
            self.job,
            process_index=args.process_index,
            num_processes=args.world_size,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        self.add_callback(_Epochs(loader.batch_sampler))
        return loader


class _Trainer(OwnBatches, Trainer):
    pass


class _Epochs(TrainerCallback):
    """Tells the sampler which epoch it is; a resumed run starts in the middle of one."""

    def __init__(self, sampler: Any):
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer before it asks for the epoch's batches."""
        self._sampler.set_epoch(int(state.epoch or 0))


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
    trainer = trainer_class(
        model=job.model,
        args=arguments,
        train_dataset=_dataset(job),
        data_collator=job.collate,
        processing_class=job.tokenizer,
    )
    trainer.job = job
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Log(on_log))
    with supervised_only(trainer.model):
        output = trainer.train()
    return TrainResult(output.global_step, output.training_loss, output.metrics)


def _dataset(job: TrainJob) -> Any:
    """The rows as the Dataset that Trainers ask for; tokens are read when a batch needs them."""
    from datasets import Dataset

    def rows(wanted: Mapping[str, list[int]]) -> dict[str, list]:
        examples = [job.examples[row] for row in wanted["row"]]
        tokens = {"input_ids": [one.input_ids for one in examples], "labels": [one.labels for one in examples]}
        return {**tokens, "length": wanted["length"]}

    lengths = [len(example.input_ids) for example in job.examples]
    return Dataset.from_dict({"row": range(len(lengths)), "length": lengths}).with_transform(rows)


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
