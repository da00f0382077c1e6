"""Tiny random models of many architectures, and one training pass through them."""

from __future__ import annotations

import torch
import transformers
from transformers import AutoModelForCausalLM

from distill import IGNORE_INDEX

VOCABULARY = 96

# One name a thing across architectures; a config takes those it has.
SMALL = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("attention_hidden_size", "sliding_window"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "rotary_dim", "time_step_rank"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "state_size"), 8),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    "layer_types": None,
}  # fmt: skip

# Those that people fine-tune, with what is special about their heads.
ARCHITECTURES = {
    "bloom": {}, "gpt2": {}, "llama": {}, "qwen2": {}, "qwen3": {}, "gpt_neox": {}, "opt": {}, "phi": {}, "phi3": {},
    "mistral": {}, "stablelm": {}, "gptj": {}, "olmo2": {}, "starcoder2": {}, "smollm3": {}, "glm4": {}, "mpt": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25},
    "mixtral": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
    "qwen3_moe": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
    "granitemoe": {"logits_scaling": 4.0},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "head_dim": None},
    "mamba": {"layer_types": None},
}  # fmt: skip


def tiny(name: str, **special):
    """A random model of a few thousand weights, without dropout, in training mode."""
    kind = transformers.CONFIG_MAPPING[name]
    defaults = kind()
    words = {key: value for key, value in SMALL.items() if hasattr(defaults, key)} | special
    words |= {key: 0.0 for key in vars(defaults) if "dropout" in key or key.endswith("pdrop")}
    if name in ("falcon", "mamba"):  # properties without a setter
        words = {key: value for key, value in words.items() if key not in ("head_dim", "layer_types")}
    config = kind(**words)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert weights < 10_000_000, f"{name} has no tiny config here"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.4)  # logits large enough for soft-capping to show
    return model.train()


def batch(rows: int = 3, length: int = 16, seed: int = 1) -> dict:
    """Padded rows; a third of the tokens count, the first of a row and the last among them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.6, IGNORE_INDEX)
    labels[:, 0], labels[:, -1] = ids[:, 0], ids[:, -1]
    attention = torch.ones_like(ids)
    attention[1, 12:], labels[1, 12:] = 0, IGNORE_INDEX
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


def loss_and_gradients(model, **inputs):
    """One training pass: the loss, every gradient, and the model's outputs."""
    torch.manual_seed(2)
    model.zero_grad()
    outputs = model(**inputs, use_cache=False)
    outputs.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return float(outputs.loss.detach()), gradients, outputs
