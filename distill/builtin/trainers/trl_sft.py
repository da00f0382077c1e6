"""TRL's SFTTrainer on our own `input_ids` and `labels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trl import SFTConfig, SFTTrainer

from distill import TrainJob, TrainResult
from distill.builtin.trainers.hugging_face import OnLog, check_fields, fit, make_arguments


class TRLTrainer:
    """Trains with TRL's SFTTrainer. The rows are labelled already, so its own preparation is skipped.

    Args:
        options: SFTConfig fields.

    Raises:
        UsageError: an unknown field (with the nearest one), or one that has a flag of its own.
    """

    def __init__(self, options: Mapping[str, Any]):
        check_fields(options, SFTConfig, "trl")
        self.options = dict(options)

    def train(self, job: TrainJob, on_log: OnLog) -> TrainResult:
        """Train `job.model`; see `distill.Trainer`."""
        arguments = make_arguments(
            SFTConfig,
            job,
            self.options,
            max_length=None,  # SFTConfig's default of 1024 cuts answers away without a word
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        return fit(SFTTrainer, arguments, job, on_log)
