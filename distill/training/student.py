"""The student: loaded and made ready for its format; saved, and verified to be the one that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.models.load import load_model, quiet
from distill.models.precision import SavedDtype, cast_weights, name_dtype
from distill.models.special_tokens import grow_embeddings, set_special_ids
from distill.runs.folder import RunFolder
from distill.training.failures import check_finite_weights
from distill.training.kernels.verification import causal_model, few_tokens
from distill.training.lora import add_adapter, load_quantized, merge_adapter, merge_saved_adapter, untie_for_adapters
from distill.training.prepare_job import JobPlan
from distill.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def load_student(settings: TrainSettings, plan: JobPlan, *, quantize: bool) -> PreTrainedModel:
    """Load the student and make it ready for its format.

    Args:
        settings: for the seed and the adapters.
        plan: what is trained.
        quantize: whether to load the weights in 4 bits.
    """
    from transformers import set_seed

    set_seed(settings.seed)  # new embedding rows are random
    model = load_quantized(plan.ref) if quantize else load_model(plan.ref)
    grow_embeddings(model, plan.encoder.tokenizer)
    set_special_ids(model, plan.encoder.tokenizer, plan.encoder.stops)
    if settings.lora is not None:
        untie_for_adapters(model, settings.lora)
    return model


def gathered_student(settings: TrainSettings, plan: JobPlan, weights: Mapping[str, Tensor]) -> Any:
    """The trained student in one piece, where training left it sharded over several processes (FSDP).

    Args:
        settings: for the seed and the adapters.
        plan: what was trained.
        weights: all of the student's, its adapters' included.
    """
    model: Any = load_student(settings, plan, quantize=False)
    if settings.lora is not None:
        model = add_adapter(model, settings.lora, plan.new_tokens)
    model.load_state_dict(weights)
    return model


def save_student(
    folder: RunFolder,
    settings: TrainSettings,
    plan: JobPlan,
    model: Any,
    card: str,
) -> SavedDtype:
    """Save a trained student, whole or not at all; adapters are saved beside it and merged into it.

    Args:
        folder: the run.
        settings: for the adapters.
        plan: what was trained.
        model: the student, with its adapters; it is used up.
        card: the model card.

    Returns:
        The dtype of the saved weights.

    Raises:
        DistillError: weights are not finite, or the saved student is not the one that was trained.
    """
    check_finite_weights(dict(model.named_parameters()))
    tokenizer, lora = plan.encoder.tokenizer, settings.lora
    expected: Tensor | None = None
    if lora is not None:
        with quiet(), folder.saving_adapter() as adapter:
            model.save_pretrained(adapter)
        if lora.quantize:
            base = load_student(settings, plan, quantize=False)
            model = merge_saved_adapter(base, folder.paths.adapter)
            expected = _logits(model)
        else:
            expected = _logits(model)
            model = merge_adapter(model)
    set_special_ids(model, tokenizer, plan.encoder.stops)
    dtype = cast_weights(model, plan.report.saved_in)
    with quiet(), folder.saving_student() as made:
        model.save_pretrained(made)
        name_dtype(made, dtype)
        tokenizer.save_pretrained(made)
        (made / "README.md").write_text(card, encoding="utf-8")
        if expected is not None:
            del model
            _check_same(made, expected, folder.paths.adapter, exact=dtype == "float32")
    return dtype


def _check_same(made: Path, expected: Tensor, adapter: Path, *, exact: bool) -> None:
    """Compare the saved student with the trained one on a few tokens.

    Raises:
        DistillError: their logits differ by more than rounding.
    """
    found = _logits(load_model(str(made)).to(expected.device))
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not difference <= (1e-3 if exact else 5e-2):
        raise DistillError(
            f"the merged student is not the one that was trained: its logits differ by {difference:.1%}",
            f"it was not saved; the adapters are in {adapter}; train with other --lora-targets",
        )


def _logits(model: Any) -> Tensor:
    """The logits of a few tokens, in the precision of the weights: trainers wrap the outermost model only."""
    import torch

    model = causal_model(model).eval()
    inputs = few_tokens(model)
    del inputs["labels"]
    with torch.inference_mode():
        logits: Tensor = model(**inputs).logits
    return logits.float()
