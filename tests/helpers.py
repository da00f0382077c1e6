"""Tiny models and tokenizers, made on the spot: no network, no weights in the repository."""

from __future__ import annotations

from pathlib import Path

# The article's rows.
ARTICLE = [
    [("user", 'How do you say "dog" in Spanish?'), ("assistant", "perro")],
    [("user", 'How do you say "cat" in Spanish?'), ("assistant", "gato")],
    [("user", 'How do you say "horse" in Spanish?'), ("assistant", "caballo")],
    [
        ("user", 'How do you say "bird" in Spanish?'),
        ("assistant", "pájaro"),
        ("user", "And in French?"),
        ("assistant", "oiseau"),
    ],
    [("user", 'How do you say "fish" in Spanish?'), ("assistant", "pez")],
]

CORPUS = [
    'How do you say "dog" in Spanish?',
    "perro gato caballo pájaro pez",
    "\n\n### Human:How do you say\n\n### Assistant:",
    "system user assistant You are a helpful assistant.",
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "Ein Satz auf Deutsch, una frase en español, une phrase en français.",
]


def byte_bpe(special: dict[str, str], vocab_size: int = 600, template: str | None = None, padding_side: str = "right"):
    """A byte-level BPE tokenizer, trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=padding_side, **special)
    fast.chat_template = template
    return fast


BLOOM_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def bloom_tokenizer():
    """As BLOOM's: byte-level BPE, `<unk> <s> </s> <pad>`, pads on the left, no chat template."""
    return byte_bpe(BLOOM_TOKENS, padding_side="left")


def tiny_bloom(spare_rows: int = 20, seed: int = 0):
    """A random BLOOM of a few thousand weights, with spare rows in its embedding table as the real one has."""
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


def tiny_llama(tokenizer, rows: int | None = None, seed: int = 0):
    """A random Llama for a tokenizer."""
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


def save(model, tokenizer, folder: Path) -> Path:
    """Write a student to a folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
