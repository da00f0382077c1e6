"""What a training is told, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.dataset.prepare import Overlong
from distill.transcripts.turns import Turns


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters on the student's linear layers.

    Attributes:
        r: the rank of the two matrices that stand in for a layer's change.
        alpha: the change is scaled by `alpha / r`.
        dropout: on the adapters' input.
        target_modules: which layers, by the ends of their names; empty: every linear layer but the output head.
        quantize: load the frozen base in 4 bits (QLoRA); needs bitsandbytes and a GPU.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    quantize: bool = False


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to train, on what, and how.

    Attributes:
        student: a model folder, `.gguf` file, hub id or registered name.
        data: transcript files.
        out: the run folder to make.
        formatter, labeler, trainer, loss: plugin names, each with its options.
        turns: which answers of a conversation are trained.
        epochs: passes over the data.
        per_device_train_batch_size: sequences a device and forward pass.
        batch_tokens: instead, the most tokens of a device and forward pass, padding included.
        packing: lay the rows of a forward pass end to end instead of padding them, where the student is proved to keep
            them apart.
        gradient_accumulation_steps: forward passes an optimizer step.
        learning_rate: the highest one.
        max_length: the most tokens of an example; None: what the model can take.
        overlong: what to do with longer ones.
        seed: for shuffling and dropout.
        data_format: the format of the data's rows, as `transcripts.dialects` names it; None: found out row by row.
        allow: errors of the label proof that are accepted (codes of `distill.dataset.findings`).
        save_steps: a checkpoint every so many steps; None: at the end of each epoch and every 15 minutes, where that
            takes less than a tenth of the time.
        save_total_limit: how many checkpoints are kept, after the end too; None: two, and none after the end.
        lora: train an adapter instead of all weights; None: all weights.
        hold_out: keep these conversations from training, by their prompts: a share (`10%`) or a number (`50`); see
            `distill.transcripts.hold_out`. None: none.
    """

    student: str
    data: tuple[Path, ...]
    out: Path
    formatter: str = "chat-template"
    formatter_options: Mapping[str, Any] = field(default_factory=dict)
    labeler: str = "masked"
    labeler_options: Mapping[str, Any] = field(default_factory=dict)
    trainer: str = "hf"
    trainer_options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "cross-entropy"
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    turns: Turns = "all"
    epochs: float = 3.0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    max_length: int | None = None
    overlong: Overlong = "error"
    seed: int = 0
    data_format: str | None = None
    allow: tuple[str, ...] = ()
    batch_tokens: int | None = None
    packing: bool = False
    save_steps: int | None = None
    save_total_limit: int | None = None
    lora: LoraSettings | None = None
    hold_out: str | None = None

    @property
    def checkpoints_kept(self) -> int:
        """How many complete checkpoints are there while training: two, since one may turn out damaged."""
        return self.save_total_limit or 2
