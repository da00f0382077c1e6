"""All kernels of a training, behind one context manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.protocols import Loss
from distill.training.kernels.gelu import fused_gelu
from distill.training.kernels.kept_memory import kept_memory
from distill.training.kernels.supervised_head import supervised_only
from distill.training.kernels.tied_embedding import one_gradient
from distill.training.kernels.verification import causal_model

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class ActiveKernels:
    """Which kernels are in effect on a model.

    Attributes:
        supervised_head: only positions whose next label counts go through the LM head.
        tied_embedding: the table of a tied embedding gets its gradient once.
        fused_gelu: how many activations are computed by one kernel.
        kept_memory: memory that a step frees is kept for the next one.
    """

    supervised_head: bool
    tied_embedding: bool
    fused_gelu: int
    kept_memory: bool


@contextmanager
def fast_training(model: nn.Module, loss: Loss | None = None) -> Iterator[ActiveKernels]:
    """Within this context, training steps of `model` take less time and memory; loss and gradients stay the same.

    Enter it around the training loop, with the model on its device, before DDP or FSDP wrap it. Each kernel is verified
    on this model first, with a few tokens; where one does not fit, the model keeps its own code. While gradients are
    recorded and `labels` are given, the model's `loss` is as ever and its `logits` are None.

        with distill.fast_training(job.model, job.loss):
            for batch in distill.data_loader(job):
                job.model(**batch).loss.backward()

    What is changed, where it falls back and how that is verified: see `distill.training.kernels`.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        loss: the job's; None: the cross-entropy.

    Yields:
        What is in effect.

    Raises:
        DistillError: there is a loss that this model cannot be trained with.
    """
    causal = causal_model(model)
    with (
        kept_memory() as kept,
        fused_gelu(model) as activations,
        supervised_only(model, loss) as head,
        one_gradient(causal) as tied,
    ):
        yield ActiveKernels(supervised_head=head, tied_embedding=tied, fused_gelu=activations, kept_memory=kept)
