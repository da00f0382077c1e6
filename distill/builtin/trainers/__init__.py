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


@hookimpl
def register_trainers() -> list[TrainerSpec]:
    """Offer `hf` (the default) and `trl`."""
    return [
        TrainerSpec("hf", "transformers' Trainer; -T sets any TrainingArguments field", _hf, dict),
        TrainerSpec("trl", "TRL's SFTTrainer on our labels; -T sets any SFTConfig field", _trl, dict),
    ]
