"""transformers' Trainer on labelled examples, and what it shares with TRL's, which is one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from distill import (
    Checkpoints,
    Evaluation,
    TrainJob,
    TrainPlan,
    TrainResult,
    data_loader,
    fast_training,
    hushed,
)
from distill.builtin.trainers.sharding import check_sharding, keep_tied_table, shard_on_cpus, whole_weights
from distill.builtin.trainers.trainer_options import check_options, construct, defaults

OnLog = Callable[[Mapping[str, float]], None]


class HuggingFaceTrainer:
    """Trains with transformers' Trainer.

    Args:
        options: TrainingArguments fields.

    Raises:
        UsageError: an unknown field (with the nearest one), one that is distill's own, or a value that does not fit.
    """

    def __init__(self, options: Mapping[str, Any]):
        self.options = check_options(options, TrainingArguments, "hf")

    def plan(self, steps: int) -> TrainPlan:
        """Describe the training; see `distill.PlanningTrainer`."""
        return plan_of(TrainingArguments, self.options, steps)

    def train(self, job: TrainJob, on_log: OnLog) -> TrainResult:
        """Train `job.model`; see `distill.Trainer`."""
        return fit(_Trainer, make_arguments(TrainingArguments, job, self.options), job, on_log)


class _Trainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """transformers' Trainer, with distill's batches."""

    job: TrainJob

    def create_accelerator_and_postprocess(self) -> None:
        """Called by the Trainer when it is made."""
        super().create_accelerator_and_postprocess()
        shard_on_cpus(self)

    def get_train_dataloader(self) -> Any:
        """Called by the Trainer before the first step; it moves the batches to the device."""
        return own_batches(self) or super().get_train_dataloader()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Called by the Trainer after a step whose training loss is logged, before a checkpoint is saved."""
        return evaluate(self)


def evaluate(trainer: Any) -> dict[str, float]:
    """Measure the student on the held-out rows, and log it; callbacks and trackers see it as an evaluation."""
    metrics = dict(trainer.job.evaluation.measure(trainer.state.global_step))
    trainer.log(dict(metrics))
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def own_batches(trainer: Any) -> Any:
    """The batches of `distill.data_loader` for this process; None where the user's options ask for another sampling."""
    args = trainer.args
    if args.train_sampling_strategy != "random" or args.dataloader_drop_last:
        return None
    loader = data_loader(
        trainer.job,
        process_index=args.process_index,
        num_processes=args.world_size,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
    trainer.add_callback(_Epochs(loader.batch_sampler))
    return loader


class _Epochs(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Tells the sampler the current epoch; a resumed run starts in the middle of one."""

    def __init__(self, sampler: Any):
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer before it asks for the epoch's batches."""
        self._sampler.set_epoch(int(state.epoch or 0))


def plan_of(arguments: Any, options: Mapping[str, Any], steps: int) -> TrainPlan:
    """Describe the training that some options of a TrainingArguments class make, before there is a job."""
    made = construct(arguments, {"output_dir": "", **defaults(arguments), **options})
    checkpointing = bool(getattr(made, "activation_checkpointing", None) or made.gradient_checkpointing)
    optimizer = getattr(made.optim, "value", made.optim)
    return TrainPlan(
        steps=made.max_steps if made.max_steps > 0 else steps,
        precision="float16" if made.fp16 else "bfloat16" if made.bf16 else "float32",
        checkpointing=checkpointing,
        optimizer_bytes=_OPTIMIZER_BYTES.get(optimizer, 8),
        memory_options=() if checkpointing else ("-T gradient_checkpointing=true",),
        bfloat16_option=None if {"bf16", "fp16"} & options.keys() else "-T bf16=true",
    )


# Bytes that optimizers keep per trained weight; all others keep Adam's two moments in float32.
_OPTIMIZER_BYTES = {"sgd": 0, "adafactor": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "adagrad": 4}


def make_arguments(arguments: Any, job: TrainJob, options: Mapping[str, Any], **fixed: Any) -> Any:
    """Build TrainingArguments, or a subclass: the job's settings, distill's defaults, then the user's options."""
    settings = {
        "output_dir": str(job.output_dir),
        "num_train_epochs": job.epochs,
        "per_device_train_batch_size": job.per_device_train_batch_size,
        "gradient_accumulation_steps": job.gradient_accumulation_steps,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.lr_scheduler_type,
        "warmup_steps": job.warmup_steps,
        "weight_decay": job.weight_decay,
        "seed": job.seed,
    }
    return construct(arguments, {**settings, **defaults(arguments), **fixed, **options})


def fit(trainer_class: Any, arguments: Any, job: TrainJob, on_log: OnLog) -> TrainResult:
    """Train with a Trainer class; each log line goes to `on_log`, and nothing to standard output."""
    with hushed():
        trainer = trainer_class(
            model=job.model,
            args=arguments,
            train_dataset=_dataset(job),
            data_collator=job.collate,
            processing_class=job.tokenizer,
        )
    check_sharding(trainer, job)
    keep_tied_table(trainer)
    trainer.job = job
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Log(on_log))
    trainer.add_callback(_Save(job.checkpoints))
    if job.evaluation is not None:
        trainer.add_callback(_Evaluate(job.evaluation))
    resume_from = job.checkpoints.resume_from
    with _quiet(), fast_training(trainer.model, job.loss):
        output = trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    return TrainResult(output.global_step, output.training_loss, output.metrics, whole_weights(trainer))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the Trainer's advice and the bar of each checkpoint off the terminal; `--debug` shows all."""
    with hushed() as silent, warnings.catch_warnings():
        if silent:
            warnings.filterwarnings("ignore", "Setting `save_embedding_layers`")  # peft is right to do so
        yield


def _dataset(job: TrainJob) -> Any:
    """The rows as the Dataset that Trainers ask for; tokens are read when a batch needs them."""
    from datasets import Dataset

    def rows(wanted: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        examples = [job.examples[row] for row in wanted["row"]]
        tokens = {"input_ids": [one.input_ids for one in examples], "labels": [one.labels for one in examples]}
        soft = {"soft": [one.soft for one in examples]} if any(one.soft is not None for one in examples) else {}
        return {**tokens, "length": wanted["length"], **soft}

    lengths = job.lengths
    return Dataset.from_dict({"row": range(len(lengths)), "length": lengths}).with_transform(rows)


class _Log(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Hands on what the Trainer logs after a step."""

    def __init__(self, sink: OnLog):
        self._sink = sink

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Called by the Trainer after each logging step, and once at its end with the totals."""
        if not logs or not ("loss" in logs or "eval_loss" in logs):
            return
        row = {key: float(value) for key, value in logs.items() if isinstance(value, (int, float, str))}
        if args.fp16 and not math.isfinite(row.get("grad_norm", 0)):
            del row["grad_norm"]  # the loss scaler has found its limit, and skips this step
        self._sink({"step": state.global_step, "max_steps": state.max_steps, **row})


class _Save(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Writes a checkpoint, or stops, when `Checkpoints` asks for it."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        verdict = self._checkpoints.after_step(
            state.global_step, max_steps=state.max_steps, epoch_end=float(state.epoch).is_integer()
        )
        if verdict != "go on":
            control.should_log = True  # the loss is checked before anything is saved
            control.should_save = True
            control.should_training_stop |= verdict == "stop"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer when a checkpoint's files are written."""
        self._checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _Evaluate(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Evaluates, and ends the training, when `Evaluation` asks for it."""

    def __init__(self, evaluation: Evaluation):
        self._evaluation = evaluation

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        ends = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if self._evaluation.due(state.global_step, epoch_end=ends):
            control.should_log = control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called when an evaluation is logged."""
        if self._evaluation.stop:
            control.should_training_stop = True
            control.should_save = False  # a checkpoint of the end would be resumed beyond it
