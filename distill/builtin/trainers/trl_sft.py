"""TRL's SFTTrainer on our own `input_ids` and `labels`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState
from trl import SFTConfig, SFTTrainer

from distill import TrainJob, TrainPlan, TrainResult
from distill.builtin.trainers.hugging_face import (
    OnLog,
    evaluate,
    fit,
    make_arguments,
    own_batches,
    plan_of,
)
from distill.builtin.trainers.sharding import shard_on_cpus
from distill.builtin.trainers.trainer_options import check_options


class TRLTrainer:
    """Trains with TRL's SFTTrainer. The rows are labelled already, so its own preparation is skipped.

    Args:
        options: SFTConfig fields.

    Raises:
        UsageError: an unknown field (with the nearest one), one that is distill's own, or a value that does not fit.
    """

    def __init__(self, options: Mapping[str, Any]):
        self.options = check_options(options, SFTConfig, "trl")

    def plan(self, steps: int) -> TrainPlan:
        """Describe the training; see `distill.PlanningTrainer`."""
        return plan_of(SFTConfig, self.options, steps)

    def train(self, job: TrainJob, on_log: OnLog) -> TrainResult:
        """Train `job.model`; see `distill.Trainer`."""
        arguments = make_arguments(
            SFTConfig,
            job,
            self.options,
            max_length=None,  # SFTConfig's default of 1024 cuts answers away without a word
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        return fit(_SFTTrainer, arguments, job, on_log)


class _SFTTrainer(SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """Takes the loss of the model itself, which projects trained positions only (see `distill.fast_training`).

    TRL's own head measures entropy and accuracy of all positions; without a GPU it projects them all, twice.
    Overriding `compute_loss` is TRL's documented way to use another loss.
    """

    job: TrainJob

    def create_accelerator_and_postprocess(self) -> None:
        """See transformers' Trainer."""
        super().create_accelerator_and_postprocess()
        shard_on_cpus(self)

    def get_train_dataloader(self) -> Any:
        """See transformers' Trainer."""
        return own_batches(self) or super().get_train_dataloader()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """See transformers' Trainer."""
        return evaluate(self)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The negative log-likelihood as transformers' Trainer takes it; for any other loss, TRL's way."""
        if self.args.loss_type != "nll" or self.label_smoother is not None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return Trainer.compute_loss(self, model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """See transformers' Trainer."""
        if resume_from_checkpoint is not None:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / "trainer_state.json"))
            counts = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
            self._total_train_tokens = int(counts[-1]) if counts else 0
        return super().train(resume_from_checkpoint, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run folder has one already."""
