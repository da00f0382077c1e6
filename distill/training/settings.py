"""What a training is told, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from distill.dataset.settings import DataSettings, Overlong
from distill.errors import UsageError
from distill.settings import check_settings, setting
from distill.transcripts.sources import Data, DataSource, as_sources

Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
"""Learning rate schedules, by transformers' names."""

_BATCHES = "Batches and steps"
_SCHEDULE = "Optimizer and schedule"
_EVALUATION = "Evaluation"
_CHECKPOINTS = "Checkpoints"
_LORA = "LoRA"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters on the student's linear layers."""

    r: int = setting(16, "--lora-rank", min=1, metavar="N", group=_LORA, help="LoRA rank (r).")
    alpha: int = setting(
        32, "--lora-alpha", min=1, metavar="N", group=_LORA, help="LoRA alpha; the update is scaled by alpha / rank."
    )
    dropout: float = setting(0.0, "--lora-dropout", min=0, below=1, metavar="X", group=_LORA, help="LoRA dropout.")
    target_modules: tuple[str, ...] = setting(
        (),
        "--lora-targets",
        metavar="NAMES",
        commas=True,
        group=_LORA,
        unset="all linear layers except the LM head",
        help="The layers to adapt, e.g. q_proj,v_proj.",
    )
    quantize: bool = setting(
        False, "--qlora", group=_LORA, help="LoRA on a base model in 4 bits; needs bitsandbytes and a GPU."
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class TrainSettings(DataSettings):
    """What to train, on what, and how."""

    data: Data = setting(argument=True, help="Transcripts: files, hub:owner/name, lists of dicts, data sets, frames.")
    out: Path = setting(metavar="RUN", recipe=False, help="The run folder to create.")
    _: KW_ONLY
    hold_out: str | None = setting(
        None,
        metavar="N|N%",
        number=True,
        help="Hold out a percentage (10%) or a number (50) of conversations for `distill compare`, chosen by their "
        "prompts; they are written to RUN/held_out.jsonl.",
    )
    seed: int = setting(0, metavar="N", help="Random seed for shuffling, dropout and --hold-out.")
    trainer: str = setting(
        "hf", metavar="NAME", help="hf (transformers' Trainer), trl (TRL's SFTTrainer), or a plugin's."
    )
    trainer_options: Mapping[str, Any] = setting(
        dict,
        "--trainer-option",
        "-T",
        key="trainer-options",
        metavar="KEY=VALUE",
        help="An option of the trainer: any field of TrainingArguments (hf) or SFTConfig (trl), e.g. "
        "-T max_grad_norm=0.5; may be repeated.",
    )
    loss: str = setting(
        "cross-entropy",
        metavar="NAME",
        help="cross-entropy (the written tokens), soft-labels or chunks (the teacher's log probabilities), or a "
        "plugin's.",
    )
    loss_options: Mapping[str, Any] = setting(
        dict,
        "--loss-option",
        "-O",
        key="loss-options",
        metavar="KEY=VALUE",
        help="An option of the loss, e.g. -O mix=0.5; may be repeated.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = setting(
        "auto",
        metavar="NAME",
        help="Precision in which the student is saved: auto (its base's), bfloat16 or float32. Its weights are trained "
        "in float32; a GPU that can computes in bfloat16.",
    )
    overlong: Overlong = setting(
        "error",
        group="Formats and labels",
        help="What to do with longer rows: refuse to start, drop the row, or truncate it at its end.",
    )
    epochs: float = setting(3.0, above=0, metavar="X", group=_BATCHES, help="Passes over the data.")
    per_device_train_batch_size: int = setting(
        8, "--batch-size", min=1, metavar="N", group=_BATCHES, help="Sequences per device and forward pass."
    )
    batch_tokens: int | None = setting(
        None,
        min=1,
        metavar="N",
        group=_BATCHES,
        excludes="batch_size",
        help="Token budget per batch, padding included; replaces --batch-size.",
    )
    gradient_accumulation_steps: int = setting(
        1, "--accumulation", min=1, metavar="N", group=_BATCHES, help="Gradient accumulation steps."
    )
    packing: bool = setting(
        False,
        group=_BATCHES,
        help="Pack the rows of a forward pass instead of padding them, if the model is verified not to attend across "
        "their boundaries; otherwise they are padded, with a note why. Losses are the same. It saves most with "
        "--batch-size and lengths that vary.",
    )
    learning_rate: float = setting(5e-5, min=0, metavar="X", group=_SCHEDULE, help="Peak learning rate.")
    lr_scheduler_type: Schedule = setting(
        "linear",
        "--lr-scheduler-type",
        metavar="NAME",
        group=_SCHEDULE,
        help="Learning rate schedule: " + ", ".join(get_args(Schedule)) + ".",
    )
    warmup_steps: int | None = setting(
        None,
        min=0,
        metavar="N",
        group=_SCHEDULE,
        excludes="warmup_ratio",
        unset="none",
        help="Steps in which the learning rate rises from 0 to its peak.",
    )
    warmup_ratio: float | None = setting(
        None, min=0, below=1, metavar="X", group=_SCHEDULE, unset="none", help="The same as a fraction of all steps."
    )
    weight_decay: float = setting(0.0, min=0, metavar="X", group=_SCHEDULE, help="Weight decay of the optimizer.")
    eval_steps: int | None = setting(
        None,
        min=1,
        metavar="N",
        group=_EVALUATION,
        unset="at the end of each epoch",
        help="Evaluate on the held-out rows (--hold-out) every N steps, and at the end of each epoch.",
    )
    keep: Literal["last", "best"] = setting(
        "last",
        group=_EVALUATION,
        help="Which student to save: the last one, or the one with the lowest held-out loss.",
    )
    patience: int | None = setting(
        None,
        min=1,
        metavar="N",
        group=_EVALUATION,
        unset="never",
        help="Stop after N evaluations in a row without a lower held-out loss.",
    )
    shared_prefix: Literal["off", "auto"] = setting(
        "off",
        group=_BATCHES,
        excludes="packing",
        help="auto: compute what the rows of a batch begin with once (a long system prompt, several answers to one "
        "prompt), if the model is verified to give the same losses and gradients; rows that begin alike are then "
        "batched together.",
    )
    save_steps: int | None = setting(
        None,
        min=1,
        metavar="N",
        group=_CHECKPOINTS,
        unset="each epoch and every 15 minutes, if that takes < 10 % of the time",
        help="Save a checkpoint every N steps.",
    )
    save_total_limit: int | None = setting(
        None,
        min=1,
        metavar="N",
        group=_CHECKPOINTS,
        unset="2, and none after the end",
        help="How many checkpoints to keep, also after the end.",
    )
    lora: LoraSettings | None = setting(
        None,
        group=_LORA,
        help="Train LoRA adapters only (try --learning-rate 2e-4); RUN/model is the student with them merged in.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.hold_out is None:
            for flag, given in (
                ("--eval-steps", self.eval_steps is not None),
                ("--keep best", self.keep == "best"),
                ("--patience", self.patience is not None),
            ):
                if given:
                    raise UsageError(f"{flag} needs held-out rows", "add --hold-out 10%")

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The data, as sources of rows."""
        return as_sources(self.data)

    @property
    def checkpoints_kept(self) -> int:
        """How many complete checkpoints are there while training: two, since one may turn out damaged."""
        return self.save_total_limit or 2
