"""What a training reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from distill.pages.environment import counted


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a training will take, in bytes per process.

    Attributes:
        parameters, trained_parameters: number of weights, and of those that are trained.
        weights, gradients, optimizer: what is kept for them all the time.
        activations: what the largest batch keeps for its backward pass.
        logits: the LM head's part of it.
        process: the libraries and the data: on a CPU they are in the same memory; 0 on a GPU.
        peak_memory: all together, at the worst moment.
        checkpoint: one checkpoint on disk.
        peak_disk: the student and the checkpoints kept at a time.
    """

    parameters: int
    trained_parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    process: int
    peak_memory: int
    checkpoint: int
    peak_disk: int


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of a training. `rows` is `trained_rows` + `skipped_rows` + `held_out_rows`.

    Attributes:
        out: the run folder.
        rows, trained_rows, skipped_rows: transcripts that came in, and what became of them.
        split_rows: trained rows that became one example per answer.
        truncated: examples cut to the maximum length.
        examples, tokens, trained_tokens: what the trainer was given.
        steps: optimizer steps, done or (in a dry run) to do.
        loss: mean training loss; None in a dry run.
        seconds: duration of the training.
        reasons: reason → number of rows skipped for it.
        packed: whether rows were packed; None where that was not asked for, or is not known yet.
        resumed_from: the checkpoint this training was resumed from, if it was.
        estimate: memory and disk, in a dry run; None where it cannot be told.
        held_out_rows: rows kept from training, in the run folder's hold-out file.
        held_out_loss: mean loss of the saved student on their trained tokens; None where it was not evaluated.
        best_step: the step of the saved weights, with `--keep best`.
        computed_in: the dtype of the forward pass; the weights are trained in float32.
        saved_in: the dtype of the saved weights.
    """

    out: str
    rows: int
    trained_rows: int
    skipped_rows: int
    split_rows: int
    truncated: int
    examples: int
    tokens: int
    trained_tokens: int
    steps: int
    loss: float | None = None
    seconds: float | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    packed: bool | None = None
    resumed_from: str | None = None
    estimate: MemoryEstimate | None = None
    held_out_rows: int = 0
    held_out_loss: float | None = None
    best_step: int | None = None
    computed_in: str = "float32"
    saved_in: Literal["float32", "bfloat16", "float16"] = "float32"

    @property
    def counts(self) -> str:
        """What is trained, in a line: `5 of 6 rows, 1,200 of 3,000 tokens, 1 step`."""
        tokens = f"{self.trained_tokens:,} of {counted(self.tokens, 'token')}"
        return f"{self.trained_rows:,} of {counted(self.rows, 'row')}, {tokens}, {counted(self.steps, 'step')}"
