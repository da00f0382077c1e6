"""How much memory and disk a training will take, estimated without loading a weight.

The student is built from its config with fake tensors, which have shapes but no content; one forward pass over the
largest batch shows what the backward pass will need. The rest is arithmetic with what the trainer's plan says.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.dataset.table import Examples
from distill.models.device import best_device
from distill.models.load import empty_model, quiet
from distill.runs.report import MemoryEstimate
from distill.training.batching import batch_sampler
from distill.training.kernels.gelu import fused_gelu
from distill.training.kernels.supervised_head import CHUNK_LOGITS
from distill.training.lora import add_adapter, untie_for_adapters
from distill.training.lora_targets import fused_experts
from distill.training.settings import TrainSettings
from distill.types import TrainPlan

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_LOGIT_COPIES = 3
"""The logits, their log probabilities, and a gradient: each as large as the logits."""

_FRAGMENTATION = 1.25
"""With adapters on a CPU, activations take this much more: glibc's heap fragments between them (measured)."""

_TRAINING_LIBRARIES = 50e6
"""Bytes that a training takes with any model: threads, kernels' buffers, Arrow tables."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest batch of a training.

    Attributes:
        rows: sequences; packed, it is one.
        longest: tokens of the longest sequence, padding included; packed, all its tokens.
        trained: trained tokens: the LM head makes logits for each.
        packed: whether its rows are packed.
    """

    rows: int
    longest: int
    trained: int
    packed: bool = False


def largest_batch(settings: TrainSettings, examples: Examples) -> Batch:
    """The batch that takes most memory.

    With a number of rows per batch, the longest rows may meet in one; with a token budget it is in the first epoch.
    """
    lengths, trained = examples.lengths.tolist(), examples.trained.tolist()
    if settings.batch_tokens is None:
        rows = min(settings.per_device_train_batch_size, len(examples))
        most = sum(heapq.nlargest(rows, trained))
        if settings.packing:
            return Batch(1, sum(heapq.nlargest(rows, lengths)), most, packed=True)
        return Batch(rows, max(lengths), most)
    batches = [[max(row, ~row) for row in batch] for batch in batch_sampler(settings, lengths)]
    most = max(sum(trained[row] for row in batch) for batch in batches)
    if settings.packing:
        return Batch(1, max(sum(lengths[row] for row in batch) for batch in batches), most, packed=True)
    largest = max(batches, key=lambda batch: len(batch) * max(lengths[row] for row in batch))
    return Batch(len(largest), max(lengths[row] for row in largest), most)


def estimate(
    ref: str,
    settings: TrainSettings,
    plan: TrainPlan,
    batch: Batch,
    *,
    vocabulary: int,
    new_tokens: Sequence[int],
    checkpoints: int,
    saved_in: str = "float32",
) -> MemoryEstimate:
    """Estimate a training's memory and disk.

    Args:
        ref: the student, as `resolve_model` gives it.
        settings: for its adapters.
        plan: what the trainer says of the training.
        batch: the largest one.
        vocabulary: how many tokens the embedding table must have rows for.
        new_tokens: tokens that the student has not seen.
        checkpoints: how many are on the disk at a time.
        saved_in: the dtype of the student's weights when they are saved.
    """
    process = _resident() + int(_TRAINING_LIBRARIES)  # before what only this function needs is imported

    import torch

    device = best_device()
    with quiet():
        with torch.device("meta"):
            model = _empty_student(ref, vocabulary)
            rows = model.get_output_embeddings().weight.shape[0]
            if settings.lora is not None:
                untie_for_adapters(model, settings.lora)
                model = add_adapter(model, settings.lora, new_tokens, prepare=False)
        counts = [(weight.numel(), weight.nbytes, weight.requires_grad) for weight in model.parameters()]
        activations = _activations(ref, vocabulary, batch, plan, device)
    parameters = sum(number for number, _, _ in counts)
    trained = sum(number for number, _, grad in counts if grad)
    weights = sum(size for _, size, _ in counts)
    if settings.lora is not None and settings.lora.quantize:
        weights = parameters // 2 + 4 * trained
    gradients = 4 * trained
    optimizer = int(trained * plan.optimizer_bytes)
    logits = _LOGIT_COPIES * 4 * min(batch.trained * rows, CHUNK_LOGITS)
    if plan.steps == 0:  # it trains nothing
        gradients = optimizer = activations = logits = 0
    process = process if device == "cpu" else 0
    if device == "cpu" and settings.lora is not None:
        activations = int(activations * _FRAGMENTATION)
    checkpoint = 4 * trained + optimizer if plan.steps != 0 else 0
    saved = parameters * getattr(torch, saved_in).itemsize
    return MemoryEstimate(
        parameters=parameters,
        trained_parameters=trained,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        process=process,
        # A student is copied when it is saved; gradients and activations are freed by then.
        peak_memory=process + weights + optimizer + max(gradients + activations + logits, saved),
        checkpoint=checkpoint,
        peak_disk=saved + checkpoints * checkpoint,
    )


def _empty_student(ref: str, vocabulary: int, dtype: str = "float32") -> PreTrainedModel:
    model = empty_model(ref, dtype)
    if vocabulary > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return model


def _activations(ref: str, vocabulary: int, batch: Batch, plan: TrainPlan, device: str) -> int:
    """Bytes that the student keeps for its backward pass.

    Without adapters: they keep the inputs that the layers' own gradients would need.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode()
    with fake, torch.device(device):
        student = _empty_student(ref, vocabulary)
    if fused_experts(student):  # torch knows the shapes of their products in bfloat16 only
        with fake, torch.device(device):
            student = _empty_student(ref, vocabulary, "bfloat16")
        with fused_gelu(student), fake, torch.device(device):
            kept = _kept_by_forward(student, batch, plan.checkpointing)
        return kept if plan.precision == "bfloat16" else 2 * kept
    half = plan.precision != "float32"
    autocast = torch.autocast(device, dtype=getattr(torch, plan.precision) if half else None, enabled=half)
    with fused_gelu(student), fake, torch.device(device), autocast:
        return _kept_by_forward(student, batch, plan.checkpointing)


def _kept_by_forward(model: PreTrainedModel, batch: Batch, checkpointing: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, without those of the LM head.

    With checkpointing only each layer's input is kept, and one layer's activations at a time.
    """
    import torch

    own = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other gets its address
        return tensor

    tokens = torch.zeros((batch.rows, batch.longest), dtype=torch.long)
    apart = {"position_ids": tokens} if batch.packed else {"attention_mask": torch.ones_like(tokens)}
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.base_model(input_ids=tokens, **apart, use_cache=False)[0]
    total = sum(storage.nbytes() for storage in kept.values())
    if not checkpointing:
        return total
    layers: int = model.config.get_text_config().num_hidden_layers
    inputs: int = layers * hidden.nbytes
    return inputs + total // layers


def _resident() -> int:
    """Bytes of this process in memory: the libraries that training needs are loaded by now, and so are the data."""
    import psutil

    resident: int = psutil.Process().memory_info().rss
    return resident
