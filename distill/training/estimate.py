"""How much memory and disk a training will take, found without loading a weight.

The student is built from its config out of fake tensors, which have shapes but no content; one forward pass over the
largest batch shows what the backward pass will need. The rest is arithmetic.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.dataset.table import Examples
from distill.models.device import best_device
from distill.models.load import model_config, quiet
from distill.runs.report import MemoryEstimate
from distill.training.batching import batch_sampler
from distill.training.kernels.gelu import fused_gelu
from distill.training.kernels.supervised_head import CHUNK_LOGITS
from distill.training.lora import add_adapter
from distill.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Bytes that optimizers keep for each trained weight; all others keep Adam's two moments in float32.
_OPTIMIZER_BYTES = {"sgd": 0, "adafactor": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "adagrad": 4}

_LOGIT_COPIES = 3
"""The logits, their logarithms, and a gradient: each as large as the logits."""

_HOLES = 1.5
"""With adapters on a CPU: glibc's heap keeps holes among activations and what is freed between them (measured)."""

_TRAINING_LIBRARIES = 50e6
"""Bytes that a training takes whatever the model: threads, kernels' buffers, Arrow tables."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest batch of a training.

    Attributes:
        rows, longest: its shape, padding included; packed, it is one row of all its tokens.
        trained: trained tokens, for each of which the head makes logits.
        packed: whether its rows lie end to end.
    """

    rows: int
    longest: int
    trained: int
    packed: bool = False


def largest_batch(settings: TrainSettings, examples: Examples) -> Batch:
    """The batch that takes most memory: by rows it may hold the longest of them, by tokens it is in the first epoch."""
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
    batch: Batch,
    *,
    vocabulary: int,
    new_tokens: Sequence[int],
    checkpoints: int,
) -> MemoryEstimate:
    """Estimate a training's memory and disk.

    Args:
        ref: the student, as `resolve_model` gives it.
        settings: adapters and trainer options count.
        batch: the largest one.
        vocabulary: tokens that the embedding table must have rows for.
        new_tokens: those that the student has not seen.
        checkpoints: how many are on the disk at a time.
    """
    process = _resident() + int(_TRAINING_LIBRARIES)  # before what only this function needs is imported

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    options = settings.trainer_options
    device = best_device()
    config = model_config(ref)
    with quiet():
        with torch.device("meta"):
            model = _empty_student(config, vocabulary)
            rows = model.get_output_embeddings().weight.shape[0]
            if settings.lora is not None:
                model = add_adapter(model, settings.lora, new_tokens, prepare=False)
        counts = [(weight.numel(), weight.nbytes, weight.requires_grad) for weight in model.parameters()]
        fake = FakeTensorMode()
        with fake, torch.device(device):
            # Without adapters: they keep the inputs that the layers' own gradients would need.
            student = _empty_student(config, vocabulary)
        with fused_gelu(student), fake, torch.device(device), torch.autocast(device, **_autocast(options)):
            activations = _activations(
                student,
                batch,
                _is_on(options.get("gradient_checkpointing", options.get("activation_checkpointing"))),
            )
    parameters = sum(number for number, _, _ in counts)
    trained = sum(number for number, _, grad in counts if grad)
    weights = sum(size for _, size, _ in counts)
    if settings.lora is not None and settings.lora.quantize:
        weights = parameters // 2 + 4 * trained
    optimizer = trained * _OPTIMIZER_BYTES.get(str(options.get("optim")), 8)
    logits = _LOGIT_COPIES * 4 * min(batch.trained * rows, CHUNK_LOGITS)
    process = process if device == "cpu" else 0
    if device == "cpu" and settings.lora is not None:
        activations = int(activations * _HOLES)
    checkpoint = 4 * trained + optimizer
    saved = 4 * parameters
    return MemoryEstimate(
        parameters=parameters,
        trained_parameters=trained,
        weights=weights,
        gradients=4 * trained,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        process=process,
        # Gradients are gone when a student is saved, which copies it; until then activations are in the way.
        peak_memory=process + weights + optimizer + max(4 * trained + activations + logits, saved),
        checkpoint=checkpoint,
        peak_disk=saved + checkpoints * checkpoint,
    )


def _empty_student(config: Any, vocabulary: int) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if vocabulary > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return model


def _autocast(options: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    if _is_on(options.get("fp16")):
        return {"dtype": torch.float16}
    return {"dtype": torch.bfloat16, "enabled": _is_on(options.get("bf16", torch.cuda.is_available()))}


def _activations(model: PreTrainedModel, batch: Batch, checkpointing: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, the head's left out.

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
    layers = model.config.get_text_config().num_hidden_layers
    return layers * hidden.nbytes + total // layers


def _is_on(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def _resident() -> int:
    """Bytes of this process in memory: the libraries that training needs are loaded by now, and so is the data."""
    import psutil

    return psutil.Process().memory_info().rss
