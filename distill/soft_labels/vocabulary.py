"""A tokenizer's vocabulary as bytes: what each token stands for, and which tokens stand for given bytes."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A short hash of a tokenizer's vocabulary: two tokenizers with equal ones mean the same by every id.

    Added tokens count only where the vocabulary has them from the start, so that a chat format which adds a marker
    at the end does not make another tokenizer of it.
    """
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    digest = hashlib.sha256()
    for text, id in sorted(vocabulary.items(), key=lambda item: item[1]):
        digest.update(f"{id} {text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


class Vocabulary:
    """What a tokenizer's ids stand for, in bytes.

    Args:
        tokenizer: a fast tokenizer; byte-level BPE, or SentencePiece's pieces with or without byte fallback.
        controls: ids of the tokens that steer the model; no bytes are ever mapped to them.

    Attributes:
        fingerprint: `tokenizer_fingerprint` of the tokenizer.
        size: ids go from 0 up to it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, controls: Collection[int] = ()):
        self.fingerprint = tokenizer_fingerprint(tokenizer)
        self.controls = frozenset(controls)
        self.size = len(tokenizer)
        self._bytes = _all_bytes(tokenizer)
        self._ids: dict[bytes, int] = {}
        for id, octets in enumerate(self._bytes):
            if octets and id not in self.controls:
                self._ids.setdefault(octets, id)

    def bytes_of(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token; empty for an id that there is no token for."""
        known = self._bytes
        return [known[id] if 0 <= id < len(known) else b"" for id in ids]

    def id_of(self, octets: bytes) -> int:
        """The id of the token with exactly these bytes; -1 where there is none. Never a control token's."""
        return self._ids.get(octets, -1)

    @functools.cached_property
    def canonical(self) -> np.ndarray:
        """(size,) int32: for each id the one that its bytes map to; -1 for control tokens and for none."""
        import numpy as np

        return np.array([self._ids.get(octets, -1) for octets in self._bytes], np.int32)


def _all_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    """The bytes of all tokens, by id."""
    backend = tokenizer.backend_tokenizer
    size = len(tokenizer)
    found = [b""] * max(size, 1 + max(tokenizer.get_vocab().values(), default=0))
    decode = _decoder_of(json.loads(backend.to_str()))
    for text, id in backend.get_vocab(with_added_tokens=True).items():
        found[id] = decode(text)
    for id, token in tokenizer.added_tokens_decoder.items():
        marked = token.content.replace("▁", " ") if not token.special and decode is _pieces else token.content
        found[id] = marked.encode("utf-8", "replace")
    return found


def _decoder_of(config: dict[str, Any]) -> Any:
    """How this kind of tokenizer writes bytes in its vocabulary."""
    parts = json.dumps([config.get("decoder"), config.get("pre_tokenizer")])
    if '"ByteLevel"' in parts:
        table = {char: octet for octet, char in enumerate(_byte_level_alphabet())}

        def byte_level(text: str) -> bytes:
            if all(char in table for char in text):
                return bytes(table[char] for char in text)
            return text.encode("utf-8", "replace")

        return byte_level
    return _pieces


def _pieces(text: str) -> bytes:
    """SentencePiece's way: `▁` is a space, `<0x0A>` is a byte."""
    if match := _BYTE.fullmatch(text):
        return bytes([int(match.group(1), 16)])
    return text.replace("▁", " ").encode("utf-8", "replace")


def _byte_level_alphabet() -> list[str]:
    """GPT-2's 256 characters, one per byte: printable ones stand for themselves, the others are moved above 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet, moved = [""] * 256, 0
    for octet in range(256):
        if octet in printable:
            alphabet[octet] = chr(octet)
        else:
            alphabet[octet] = chr(256 + moved)
            moved += 1
    return alphabet
