"""Only causal language models can be distilled: each token may depend on those before it, and on nothing after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.errors import DistillError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

_HINT = "choose a decoder-only language model, such as BLOOM, Qwen, Llama or Gemma"


def check_kind(config: PreTrainedConfig, ref: str) -> None:
    """Refuse encoder-decoder models by name.

    Raises:
        DistillError: it is one.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise DistillError(f"model {str(ref)!r} is an encoder-decoder ({config.model_type}), not a causal model", _HINT)


def check_causal(model: PreTrainedModel, ref: str) -> None:
    """Refuse a model in which a later token changes the prediction at an earlier one.

    An encoder such as BERT loads as a causal model, trains to a loss near zero, since it sees the answer, and can
    generate nothing. Costs two forward passes over four tokens.

    Args:
        model: in evaluation mode; with weights.
        ref: as the user named it, for the error.

    Raises:
        DistillError: the model is not causal.
    """
    import torch

    embeddings = model.get_input_embeddings()
    if embeddings is None or embeddings.weight.is_meta or embeddings.weight.shape[0] < 5:
        return
    first, other = _logits(model, [1, 2, 3, 4]), _logits(model, [1, 2, 3, 0])
    if first is None or other is None:
        return
    scale = first.abs().max().item()
    if not torch.allclose(first, other, rtol=0, atol=1e-3 * max(scale, 1e-3)):
        raise DistillError(
            f"model {str(ref)!r} is not causal ({model.config.model_type}): its predictions depend on later tokens",
            _HINT,
        )


def _logits(model: PreTrainedModel, ids: list[int]) -> Tensor | None:
    """The logits before the last token; None where they are not numbers."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([ids], device=model.device)
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    return logits if bool(torch.isfinite(logits).all()) else None
