"""Pre-tokenizers of byte-level BPE, by the names that GGUF files use for them.

A GGUF file has no `tokenizer.json`: it has the vocabulary, the merges, and a name (`tokenizer.ggml.pre`) for the
pre-tokenizer. A wrong name gives other tokens without any error. llama.cpp's converter finds the name by hashing the
tokens of one text, so it knows vocabularies one by one; here the rules are compared with those that llama.cpp has under
each name, which works for any vocabulary. transformers 5.23 ignores the name when it reads a file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("distill")

_PAIR = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_APOSTROPHES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(regex: str) -> list[dict[str, Any]]:
    rule = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return [rule, _byte_level(False)]


PRE_TOKENIZERS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "gpt-2": [_byte_level(True)],
    "smollm": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    "bloom": _split(r" ?[^(\s|[.,!?…。，、।۔،])]+"),
    "llama-bpe": _split(_APOSTROPHES + _PAIR % "{1,3}"),
    "qwen2": _split(_APOSTROPHES + _PAIR % ""),
}
"""llama.cpp's name → the rules, as a `tokenizer.json` writes them (llama-vocab.cpp, November 2026)."""

WHOLE_WORDS_FIRST = {"llama-bpe"}
"""Names under which llama.cpp takes whole words from the vocabulary without merging (`ignore_merges`)."""


def steps_of(source: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The steps in which a `tokenizer.json` cuts text."""
    rules = source["pre_tokenizer"] or {}
    steps: Sequence[Mapping[str, Any]] = rules.get("pretokenizers", [rules])
    return steps


def name_of(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """llama.cpp's name for these steps; None if it is not known here."""
    asked = [*map(_without_offsets, steps)]
    return next((name for name, known in PRE_TOKENIZERS.items() if [*map(_without_offsets, known)] == asked), None)


def _without_offsets(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "trim_offsets"}  # about offsets, not tokens


def cut_as_the_file_says(tokenizer: PreTrainedTokenizerFast, file: str) -> None:
    """Give a tokenizer that transformers read from a GGUF file the pre-tokenizer that the file names.

    SmolLM2's file names `smollm`, which splits digits; without it, the blank lines before a numbered list become other
    tokens than those the model was trained on.

    Args:
        tokenizer: is changed if its pre-tokenizer differs.
        file: the GGUF file.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer

    reader = GGUFReader(file)
    model, name = (_text(reader, f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if model != "gpt2" or name is None:
        return
    if name not in PRE_TOKENIZERS:
        log.warning(
            "%s: distill does not know the pre-tokenizer %r; unless transformers does, token ids differ from those the "
            "model was trained on (its safetensors folder has the right tokenizer)",
            file,
            name,
        )
        return
    backend = tokenizer.backend_tokenizer
    if name_of(steps_of(json.loads(backend.to_str()))) != name:
        rules = {"type": "Sequence", "pretokenizers": [*PRE_TOKENIZERS[name]]}
        empty = {"type": "BPE", "vocab": {}, "merges": []}
        made = Tokenizer.from_str(json.dumps({"version": "1.0", "pre_tokenizer": rules, "model": empty}))
        backend.pre_tokenizer = made.pre_tokenizer
    backend.model.ignore_merges = name in WHOLE_WORDS_FIRST


def _text(reader: Any, key: str) -> str | None:
    field = reader.get_field(key)
    return None if field is None else field.contents()
