"""Built-in trainers: transformers' Trainer and TRL's SFTTrainer."""

from __future__ import annotations

from typing import Any

from distill import Trainer, TrainerSpec, hookimpl


def _hf(options: dict[str, Any]) -> Trainer:
    from distill.builtin.trainers.hugging_face import HuggingFaceTrainer

    return HuggingFaceTrainer(options)


def _trl(options: dict[str, Any]) -> Trainer:
    from distill.builtin.trainers.trl_sft import TRLTrainer

    return TRLTrainer(options)


_OPTIONS = {
    "warmup_steps": "steps in which the learning rate rises to its peak; below 1: a fraction of all steps",
    "lr_scheduler_type": "what the learning rate does after its peak: linear (default), cosine, constant, …",
    "weight_decay": "weight decay of AdamW (default 0)",
    "max_grad_norm": "gradients are clipped to this norm (default 1)",
    "max_steps": "stop after this number of optimizer steps, whatever --epochs",
    "bf16": "mixed precision in bfloat16: faster on recent GPUs and server CPUs, half the memory for activations",
    "gradient_checkpointing": "recompute activations in the backward pass: less memory, about a third slower",
    "optim": "the optimizer: adamw_torch (default), adamw_torch_fused, adafactor, adamw_8bit, …",
    "logging_steps": "write a row of metrics every N steps (default 1)",
    "report_to": "experiment trackers: wandb, mlflow, tensorboard, trackio (default none)",
}
"""The ten fields of TrainingArguments used most; SFTConfig has them too."""


@hookimpl
def register_trainers() -> list[TrainerSpec]:
    """Offer `hf` (the default) and `trl`."""
    return [
        TrainerSpec("hf", "transformers' Trainer; -T sets any TrainingArguments field", _hf, dict, _OPTIONS),
        TrainerSpec("trl", "TRL's SFTTrainer on our labels; -T sets any SFTConfig field", _trl, dict, _OPTIONS),
    ]
