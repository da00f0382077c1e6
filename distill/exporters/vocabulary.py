"""A tokenizer in GGUF's terms, and back: llama.cpp takes a vocabulary, merges, and the name of a pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.encode.chat_rendering import render_chat
from distill.encode.tokenizer import default_template
from distill.errors import DistillError
from distill.exporters.architectures import CONVERTER_HINT
from distill.models.gguf_tokenizer import PRE_TOKENIZERS, WHOLE_WORDS_FIRST, name_of, steps_of
from distill.models.load import model_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE tokenizer as GGUF describes it.

    Attributes:
        pre: llama.cpp's name for the pre-tokenizer.
        tokens: by id, one for each row of the embedding table.
        types: the type of each, as `gguf.TokenType`.
        merges: the highest-ranked first.
        ids: `bos`, `eos`, `eot`, `eom`, `unk`, `pad` → id; eot is the trained end-of-turn marker, eom that of tool
            calls where it is another.
        add_bos: whether llama.cpp puts bos before a prompt: only where the chat template does too.
        chat_template: Jinja.
    """

    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    ids: Mapping[str, int]
    add_bos: bool
    chat_template: str | None

    def write(self, writer: Any) -> None:
        """Put it into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        writer.add_token_merges(list(self.merges))
        for name, number in self.ids.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(False)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def stops_of(model: str) -> list[int]:
    """The markers at which a student's answers end, an answer's first: `distill train` saves them so."""
    config = model_config(model).get_text_config()
    path = Path(model) / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    stops = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(stop for stop in (config.eos_token_id, *stops) if stop is not None))


def read_vocabulary(tokenizer: PreTrainedTokenizerFast, rows: int, stops: Sequence[int]) -> Vocabulary:
    """Describe a tokenizer in GGUF's terms.

    Args:
        tokenizer: the student's.
        rows: of the embedding table.
        stops: ids of the trained end markers, an answer's first.

    Raises:
        DistillError: it is no byte-level BPE, or its pre-tokenizer has no known name.
    """
    source = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = _pre_tokenizer(source)
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    ids = {name: number for name, number in ids.items() if number is not None}
    ids = {"eos": stops[0], **ids, "eot": stops[0]}
    others = [stop for stop in stops[1:] if stop != ids["eos"]]
    if others:
        ids["eom"] = others[0]
    if len(others) > 1 and ids["eos"] not in stops:
        ids["eos"] = others[1]
    text = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {token["id"]: token["special"] for token in source["added_tokens"]}
    tokens, types = [], []
    for number in range(rows):
        kind = UNUSED if number not in text else NORMAL
        if number in added:
            # llama.cpp stops generation at control tokens only, whatever the tokenizer calls the token.
            kind = CONTROL if added[number] or number in (*stops, ids["eos"]) else USER_DEFINED
        tokens.append(text.get(number, f"[PAD{number}]"))
        types.append(kind)
    return Vocabulary(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]],
        ids=ids,
        add_bos=_adds_bos(tokenizer) and prompts_begin_with_bos(tokenizer),
        chat_template=default_template(tokenizer),
    )


def _pre_tokenizer(source: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way a `tokenizer.json` cuts text."""
    model = source["model"]
    steps = steps_of(source)
    plain = model["type"] == "BPE" and not any(
        model.get(key) for key in ("byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if not plain or not steps or steps[-1].get("type") != "ByteLevel":
        raise DistillError("distill writes GGUF for byte-level BPE tokenizers only; this is none", CONVERTER_HINT)
    name = name_of(steps)
    if name is None or source["normalizer"] not in (None, {"type": "NFC"} if name == "qwen2" else None):
        raise DistillError(
            "distill has no llama.cpp name for the tokenizer's way to split text "
            f"(pre-tokenizer {json.dumps(steps, ensure_ascii=False)}, normalizer {source['normalizer']})",
            CONVERTER_HINT,
        )
    if bool(model.get("ignore_merges")) != (name in WHOLE_WORDS_FIRST):
        raise DistillError(f"llama.cpp's {name!r} merges differently from this tokenizer", CONVERTER_HINT)
    return name


def _adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether plain tokenization begins with bos."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def prompts_begin_with_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template writes bos itself: the student was trained on what it writes."""
    if tokenizer.bos_token is None or tokenizer.chat_template is None:
        return False
    asked = [{"role": "user", "content": "a"}]
    return render_chat(tokenizer, asked, add_generation_prompt=True).startswith(tokenizer.bos_token)


def rebuild(vocabulary: Vocabulary) -> Any:
    """Make the tokenizer that llama.cpp makes from a vocabulary, as a `tokenizers.Tokenizer`.

    Raises:
        KeyError: its `pre` is not in `PRE_TOKENIZERS`.
    """
    from tokenizers import Tokenizer

    added = [
        {"id": number, "content": token, "special": kind == CONTROL, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(vocabulary.tokens)},
        "merges": [merge.split(" ") for merge in vocabulary.merges],
        "ignore_merges": vocabulary.pre in WHOLE_WORDS_FIRST,
    }
    rules = {"type": "Sequence", "pretokenizers": [*PRE_TOKENIZERS[vocabulary.pre]]}
    source = {"version": "1.0", "added_tokens": added, "pre_tokenizer": rules, "model": model}
    return Tokenizer.from_str(json.dumps(source))
