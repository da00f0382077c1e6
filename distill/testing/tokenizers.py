"""Tokenizers of every kind in use, trained on the spot, with chat templates like the well-known ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CORPUS = [
    'How do you say "dog" in Spanish?',
    "perro gato caballo pájaro pez",
    "\n\n### Human:How do you say\n\n### Assistant:",
    "system user assistant You are a helpful assistant.",
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "Ein Satz auf Deutsch, una frase en español, une phrase en français.",
]


def byte_bpe(
    special: Mapping[str, str], vocab_size: int = 600, template: str | None = None, padding_side: str = "right"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on the spot.

    Args:
        special: `bos_token`, `eos_token`, … → its text.
        vocab_size: maximum number of tokens.
        template: its chat template.
        padding_side: `right` or `left`.
    """
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


def bloom_tokenizer() -> PreTrainedTokenizerFast:
    """As BLOOM's: byte-level BPE, `<unk> <s> </s> <pad>`, pads on the left, no chat template."""
    return byte_bpe(BLOOM_TOKENS, padding_side="left")


CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}"
    "{% else %}{{ m['content'] + '\n' }}{% endif %}{% endfor %}"
)
# Strips the reasoning of earlier turns, and shows an empty one in the last, as Qwen3's does.
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Writes an answer's end marker only when another turn follows.
LATE_END = (
    "{% for m in messages %}{% if not loop.first %}{{ '<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|>\n<|im_start|>assistant\n' }}{% endif %}"
)


def _chatml() -> PreTrainedTokenizerFast:
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return byte_bpe({**special, "unk_token": "<|endoftext|>"}, template=CHATML)


def _llama3() -> PreTrainedTokenizerFast:
    tokenizer = byte_bpe({"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, template=LLAMA3)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>"]})
    return tokenizer


def _gemma() -> PreTrainedTokenizerFast:
    """Metaspace with byte fallback, white-space tokens among the added ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=special + bytes_, show_progress=False)
    )
    import json

    config = json.loads(tokenizer.to_str())  # the bytes are vocabulary, not added tokens
    config["added_tokens"] = [token for token in config["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(config))
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=special[4:],
        chat_template=GEMMA,
    )


def _unigram() -> PreTrainedTokenizerFast:
    """Unigram, whose vocabulary holds the control strings as ordinary entries; Metaspace at the start only."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({char for text in CORPUS for char in text} | set("<>/s▁"))
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"],
        chat_template=LLAMA2,
    )


def _wordpiece() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]"
    )


def _qwen3() -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken

    tokenizer = byte_bpe({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, template=QWEN3)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


def _late_end() -> PreTrainedTokenizerFast:
    tokenizer = byte_bpe({"eos_token": "<|im_end|>"}, template=LATE_END)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return tokenizer


def _bare() -> PreTrainedTokenizerFast:
    """GPT-2's way: one token for everything, no template."""
    return byte_bpe(dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"))


def _no_special() -> PreTrainedTokenizerFast:
    """Neither bos nor eos nor anything else, no template."""
    return byte_bpe({})


TOKENIZERS: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bloom": bloom_tokenizer,
    "chatml": _chatml,
    "llama3": _llama3,
    "gemma": _gemma,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "qwen3": _qwen3,
    "late-end": _late_end,
    "bare": _bare,
    "no-special": _no_special,
}

# Those whose decoder gives back the very text that was encoded.
EXACT = ("bloom", "chatml", "llama3", "gemma", "qwen3", "late-end", "bare", "no-special")
