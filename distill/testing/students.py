"""Tiny students with random weights: nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill.testing.tokenizers import bloom_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def tiny_bloom(spare_rows: int = 20, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random BLOOM of a few thousand weights, with spare rows in its embedding table as the real one has.

    Returns:
        The model and its tokenizer.
    """
    import torch
    from transformers import BloomConfig, BloomForCausalLM

    tokenizer = bloom_tokenizer()
    torch.manual_seed(seed)
    config = BloomConfig(
        vocab_size=len(tokenizer) + spare_rows,
        hidden_size=64,
        n_layer=2,
        n_head=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=3,
    )
    return BloomForCausalLM(config), tokenizer


def tiny_llama(tokenizer: PreTrainedTokenizerFast, rows: int | None = None, seed: int = 0) -> PreTrainedModel:
    """A random Llama for a tokenizer.

    Args:
        tokenizer: the student's.
        rows: the size of its embedding table; default: one per token.
        seed: random seed for its weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows or len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config)


def save_student(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a student to a folder, as `--student FOLDER` takes it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
