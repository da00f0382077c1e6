"""Evaluation while a student is trained: held-out loss and agreement, the best weights so far, and early stopping.

What has been evaluated is in `metrics.jsonl`, and all decisions follow from it: a resumed training reads its rows and
decides as if it had never been stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.dataset.table import Examples
from distill.errors import DistillError
from distill.files.atomic import fsync
from distill.models.lm_head import score_tokens
from distill.protocols import Collator
from distill.training.distributed import World
from distill.training.kernels.supervised_head import CHUNK_LOGITS
from distill.training.kernels.verification import trial_run
from distill.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

LOSS, AGREEMENT = "eval_loss", "eval_agreement"
"""Keys of a metrics row: mean loss of the held-out rows' trained tokens, and how many are the student's likeliest."""


class HeldOutEvaluation:
    """Evaluates the student on held-out rows; see `distill.Evaluation`.

    Args:
        examples: the held-out rows, labelled.
        collate: makes padded batches of them.
        model: the student in training, with its adapters.
        world: the processes of the training; each evaluates its part.
        batch_rows: rows per forward pass.
        every: evaluate every N steps; None: at the end of each epoch only.
        patience: stop after N evaluations in a row without a lower loss; None: never.
        best: the file to keep the best weights in; None: they are not kept.
    """

    def __init__(
        self,
        examples: Examples,
        collate: Collator,
        model: Any,
        world: World,
        *,
        batch_rows: int,
        every: int | None = None,
        patience: int | None = None,
        best: Path | None = None,
    ):
        self.best_step: int | None = None
        self.best_loss = float("inf")
        self._without_gain = 0
        self._examples, self._collate, self._model, self._world = examples, collate, model, world
        self._batch_rows, self._every, self._patience, self._best = batch_rows, every, patience, best

    @property
    def stop(self) -> bool:
        """Whether training is to end."""
        return self._patience is not None and self._without_gain >= self._patience

    def due(self, step: int, *, epoch_end: bool) -> bool:
        """Whether to evaluate after this step."""
        return epoch_end or (self._every is not None and step % self._every == 0)

    def measure(self, step: int) -> Mapping[str, float]:
        """Evaluate, and keep the weights if they are the best so far."""
        losses, hits, tokens = self._world.sums(*self._measure_part())
        loss = losses / max(1.0, tokens)
        if self._note(step, loss) and self._best is not None:
            self._keep(step)
        return {LOSS: loss, AGREEMENT: hits / max(1.0, tokens)}

    def _measure_part(self) -> tuple[float, float, float]:
        """This process's sums of losses, hits and tokens.

        All processes make the same number of forward passes: for each, a sharded student needs all of them. One that
        has nothing left repeats a pass, and does not count it.
        """
        losses, hits, tokens = 0.0, 0.0, 0.0
        batches = self._batches(self._world.rank, self._world.size)
        own = (part for batch in batches for part in _parts(self._model, batch))
        part = spare = next(own, None)
        with trial_run(self._model):
            while any(self._world.highest(part is not None)):
                spare = part or spare or next(_parts(self._model, next(self._batches(0, 1))))
                scores = score_tokens(self._model, *spare)
                if part is not None:
                    losses += scores.losses.double().sum().item()
                    hits += scores.hits.sum().item()
                    tokens += len(scores.losses)
                    part = next(own, None)
        return losses, hits, tokens

    def resume(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take in what was evaluated before training was stopped.

        Args:
            rows: of the metrics, up to the step that training resumes from.

        Raises:
            DistillError: the best weights are gone.
        """
        for row in rows:
            if LOSS in row:
                self._note(int(row["step"]), row[LOSS])
        if self._best is None or self.best_step is None:
            return
        if (kept := _step_in(self._best)) is None or kept < self.best_step:
            raise DistillError(
                f"{self._best} does not hold the weights of step {self.best_step}, the best so far",
                "restore it from a backup, or remove the run folder to start over",
            )

    def restore_best(self, student: Any) -> int | None:
        """Put the best weights into the trained student.

        Args:
            student: with its adapters, in one piece.

        Returns:
            The step they are of; None: best weights are not kept, or none was evaluated.

        Raises:
            DistillError: the file does not hold them.
        """
        if self._best is None or self.best_step is None:
            return None
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(self._best)
        except (OSError, SafetensorError) as error:
            raise DistillError(f"{self._best} cannot be read: {error}", "train again") from error
        if _step_in(self._best) != self.best_step:
            raise DistillError(f"{self._best} does not hold the weights of step {self.best_step}", "train again")
        with torch.no_grad():
            for name, weight in _trained(student).items():
                weight.copy_(weights[name])
        return self.best_step

    def _note(self, step: int, loss: float) -> bool:
        """Whether this is the lowest loss so far."""
        if loss < self.best_loss:
            self.best_step, self.best_loss, self._without_gain = step, loss, 0
            return True
        self._without_gain += 1
        return False

    def _batches(self, rank: int, size: int) -> Iterator[Mapping[str, Tensor]]:
        """One of `size` parts of the held-out rows, in batches of similar length."""
        order = sorted(range(len(self._examples)), key=lambda row: (-int(self._examples.lengths[row]), row))
        starts = range(0, len(order), self._batch_rows)
        for start in starts[rank::size]:
            rows = [self._examples[row] for row in order[start : start + self._batch_rows]]
            yield self._collate([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])

    def _keep(self, step: int) -> None:
        """Write the trained weights, whole or not at all."""
        from safetensors.torch import save_file

        assert self._best is not None
        weights = {name: _whole(weight).detach().contiguous() for name, weight in _trained(self._model).items()}
        if not self._world.is_main:
            return
        self._best.parent.mkdir(parents=True, exist_ok=True)
        half = self._best.with_name(f".{self._best.name}.tmp")
        save_file(weights, half, metadata={"step": str(step)})
        fsync(half)
        os.replace(half, self._best)
        fsync(self._best.parent)


def _trained(model: Any) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _step_in(best: Path) -> int | None:
    """The step of the weights in the file; None where there are none."""
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, SafetensorError, ValueError), safe_open(best, framework="pt") as file:
        return int((file.metadata() or {}).get("step", ""))
    return None


def _whole(weight: Any) -> Tensor:
    """A weight in one piece; one that is sharded is gathered from all processes."""
    whole: Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return whole


def _parts(model: Any, batch: Mapping[str, Tensor]) -> Iterator[tuple[Mapping[str, Tensor], Tensor, Tensor]]:
    """What `score_tokens` takes of a batch, as many trained positions at a time as the logits may have."""
    import torch

    inputs = {name: values.to(model.device) for name, values in batch.items()}
    labels = inputs.pop("labels")
    wanted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    positions = (wanted != IGNORE_INDEX).nonzero()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    for some in torch.split(positions, max(1, CHUNK_LOGITS // vocabulary)):
        keep = torch.zeros_like(wanted, dtype=torch.bool)
        keep[some[:, 0], some[:, 1]] = True
        yield inputs, keep, wanted[keep]
