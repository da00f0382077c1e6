"""Model architectures as llama.cpp knows them: their settings under GGUF's keys, and the order of their weights.

Settings and orders are those of llama.cpp's `conversion/` (llama, qwen, bloom, gpt2), as of November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor
    from transformers import PreTrainedConfig

CONVERTER_HINT = "convert with llama.cpp's own converter: --llama-cpp PATH (a checkout of llama.cpp)"

Settings = Mapping[str, "int | float | str"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    Attributes:
        name: llama.cpp's.
        settings: from a config to GGUF's keys (without the architecture's name) and values; raises `ValueError` with
            the reason where GGUF or this module cannot express the config.
        reorder: from a weight by transformers' name to the same in llama.cpp's order.
        extra: from a config to tensors that transformers computes when it loads a model, by GGUF's names.
    """

    name: str
    settings: Callable[[PreTrainedConfig], Settings]
    reorder: Callable[[str, Tensor, PreTrainedConfig], Tensor] = lambda name, tensor, config: tensor
    extra: Callable[[PreTrainedConfig], Mapping[str, ndarray[Any, Any]]] = lambda config: {}


def architecture_of(config: PreTrainedConfig) -> tuple[Architecture, Settings]:
    """Find a model's architecture and its settings.

    Raises:
        DistillError: the architecture is not supported here, or one of its settings is not.
    """
    known = ARCHITECTURES.get(config.model_type)
    if known is None:
        names = ", ".join(sorted(ARCHITECTURES))
        raise DistillError(f"distill writes GGUF for {names}; this student is a {config.model_type!r}", CONVERTER_HINT)
    try:
        return known, known.settings(config)
    except ValueError as error:
        raise DistillError(f"distill cannot write this {config.model_type} as GGUF: {error}", CONVERTER_HINT) from None


def _must(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _rotary(config: PreTrainedConfig) -> dict[str, int | float | str]:
    """Llama and its relatives."""
    rope: Mapping[str, Any] = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    _must(kind in ("default", "linear", "llama3"), f"its rotary embedding is of the type {kind!r}")
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])} if kind == "linear" else {}
    _must(config.hidden_act == "silu", f"its activation is {config.hidden_act!r}")
    _must(not getattr(config, "mlp_bias", False), "its feed-forward layers have biases")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads or config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
        **scaling,
    }


def rotary_factors(config: PreTrainedConfig) -> Mapping[str, ndarray[Any, Any]]:
    """What Llama 3.1 and later divide each rotary frequency by: low ones by the factor, high ones by nothing.

    llama.cpp reads them from a tensor; other kinds of scaling have settings.
    """
    import numpy as np

    rope: Mapping[str, Any] = config.rope_parameters or {}
    if rope.get("rope_type") != "llama3":
        return {}
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wavelengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    low, high, factor = (rope[name] for name in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = rope["original_max_position_embeddings"] / wavelengths  # in the context of the pre-training
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


def _llama(config: PreTrainedConfig) -> Settings:
    _must(not config.attention_bias, "its attention layers have biases")
    return _rotary(config)


def _qwen(config: PreTrainedConfig) -> Settings:
    _must(not config.use_sliding_window, "it attends in a sliding window")
    return _rotary(config)


def _bloom(config: PreTrainedConfig) -> Settings:
    _must(not config.apply_residual_connection_post_layernorm, "its residual connections come after the norms")
    return {
        "block_count": config.n_layer,
        "context_length": getattr(config, "seq_length", None) or 2048,  # ALiBi has no limit; BLOOM saw 2048
        "embedding_length": config.hidden_size,
        "feed_forward_length": 4 * config.hidden_size,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


def _gpt2(config: PreTrainedConfig) -> Settings:
    _must(config.activation_function == "gelu_new", f"its activation is {config.activation_function!r}")
    _must(config.n_inner in (None, 4 * config.n_embd), "its feed-forward layers are not four times as wide as the rest")
    _must(config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx, "it scales attention differently")
    return {
        "block_count": config.n_layer,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "feed_forward_length": 4 * config.n_embd,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


def _interleave_rotary(name: str, tensor: Tensor, config: PreTrainedConfig) -> Tensor:
    """Transformers rotates the two halves of a head, llama.cpp's Llama neighbours: queries and keys change places."""
    if name.endswith("q_proj.weight"):
        heads = config.num_attention_heads
    elif name.endswith("k_proj.weight"):
        heads = config.num_key_value_heads or config.num_attention_heads
    else:
        return tensor
    half = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, half, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _queries_keys_values(name: str, tensor: Tensor, config: PreTrainedConfig) -> Tensor:
    """BLOOM keeps query, key and value of a head together; llama.cpp all queries, all keys, all values."""
    if ".query_key_value." not in name:
        return tensor
    width = config.hidden_size // config.n_head
    return tensor.reshape(config.n_head, 3, width, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)


def _transpose_conv1d(name: str, tensor: Tensor, config: PreTrainedConfig) -> Tensor:
    """GPT-2's linear layers are stored as (in, out)."""
    return tensor.T if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")) else tensor


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _llama, _interleave_rotary, rotary_factors),
    "qwen2": Architecture("qwen2", _qwen, extra=rotary_factors),
    "qwen3": Architecture("qwen3", _qwen, extra=rotary_factors),
    "bloom": Architecture("bloom", _bloom, _queries_keys_values),
    "gpt2": Architecture("gpt2", _gpt2, _transpose_conv1d),
}
"""By transformers' `model_type`."""
