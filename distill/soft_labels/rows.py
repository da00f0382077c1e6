"""How a transcript's row keeps the teacher's log probabilities: `metadata.logprobs`, one object per answer.

The format is documented in `docs/transcripts.md`. Reading and writing need no numpy, except for `AnswerLogprobs`, whose
arrays training works on. Candidates are packed as base64 columns (24-bit ids, float16 log probabilities), because as
JSON numbers twenty candidates would take twice the space.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.types import Transcript

if TYPE_CHECKING:
    import numpy as np

MISSING_ID = 0xFFFFFF
"""Fills the places of candidates that the teacher did not give; their log probability is NaN."""

UNKNOWN = -9999.0
"""What OpenAI's API (and servers that copy it) writes for a log probability that it does not tell."""

_DECIMALS = 4

Candidate = tuple[int | bytes | str, float]
"""A likely token at a place, by its id or by its text, and its log probability."""


@dataclass(frozen=True, slots=True)
class LogprobsOrigin:
    """How log probabilities came about. What is None is not known.

    Attributes:
        scored: the teacher read an answer that was there already, instead of writing it.
        raw: the numbers are the model's own at temperature 1, before temperature, top-p or penalties.
        temperature: the one the answer was sampled with; 0 is greedy.
        top_p: the one the answer was sampled with; 1 leaves nothing out.
        tokenizer: fingerprint of the tokenizer that the ids belong to (`distill.tokenizer_fingerprint`).
        end_ids: the ids by which this teacher ends an answer.
    """

    scored: bool = False
    raw: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    tokenizer: str | None = None
    end_ids: tuple[int, ...] = ()

    @property
    def sampled_plainly(self) -> bool:
        """Whether the answer is a sample of the very distribution that is told: temperature 1, nothing left out."""
        return self.temperature == 1 and self.top_p == 1

    def to_dict(self) -> dict[str, Any]:
        """As a row keeps it: what is not known is left out."""
        row: dict[str, Any] = {"scored": True} if self.scored else {}
        for name in ("raw", "temperature", "top_p", "tokenizer"):
            if (value := getattr(self, name)) is not None:
                row[name] = value
        return {**row, "end_ids": list(self.end_ids)} if self.end_ids else row


@dataclass(frozen=True, slots=True)
class AnswerLogprobs:
    """The teacher's log probabilities of one answer.

    Attributes:
        tokens: the bytes of each of the teacher's tokens, in order.
        logprobs: (tokens,) float32: of the token that was written; NaN where it is not known.
        ids: (tokens,) int32: the teacher's token ids; None where they are not known.
        top_ids: (tokens, K) int32: the likeliest tokens, likeliest first; -1 where there are fewer.
            They index `vocabulary` where there is one, else they are the teacher's token ids.
        top_logprobs: (tokens, K) float32; NaN where there are fewer.
        vocabulary: the bytes of the candidates, where the teacher gave no ids.
        end: how many of the last tokens are the end-of-turn marker.
        origin: how the numbers came about.
    """

    tokens: tuple[bytes, ...]
    logprobs: np.ndarray
    ids: np.ndarray | None
    top_ids: np.ndarray
    top_logprobs: np.ndarray
    vocabulary: tuple[bytes, ...] | None
    end: int
    origin: LogprobsOrigin


def pack_logprobs(
    tokens: Sequence[bytes | str],
    logprobs: Sequence[float | None],
    *,
    ids: Sequence[int] | None = None,
    top: Sequence[Sequence[Candidate]] = (),
    k: int = 0,
    end: int = 0,
    origin: LogprobsOrigin | None = None,
) -> dict[str, Any]:
    """Put a teacher's log probabilities into the form that rows keep; give it as `Answer.logprobs`.

    Candidates may come unsorted, twice, as -inf or -9999, or more than K: what is kept are the K likeliest, each once.

    Args:
        tokens: the answer's tokens, as bytes; a string stands for its UTF-8 bytes.
        logprobs: of each of them; None, -inf or -9999 where it is not known.
        ids: their ids, where they are known.
        top: the likeliest tokens at each place: by id where `ids` are given, else by bytes.
        k: the most candidates kept per token.
        end: how many of the last tokens are the end-of-turn marker.
        origin: how the numbers came about.

    Raises:
        ValueError: the columns differ in length.
    """
    if (
        len(logprobs) != len(tokens)
        or (ids is not None and len(ids) != len(tokens))
        or len(top) not in (0, len(tokens))
    ):
        raise ValueError("tokens, logprobs, ids and top must have one entry per token")
    row: dict[str, Any] = {
        "tokens": [_text_or_octets(token) for token in tokens],
        "logprobs": [_rounded(value) for value in logprobs],
    }
    if ids is not None:
        row["ids"] = list(ids)
    vocabulary: dict[bytes, int] = {}
    kept = [_likeliest(some, k) for some in top]
    k = max(map(len, kept), default=0)
    if k:
        columns: list[tuple[int, float]] = []
        for some in kept:
            for token, value in some:
                known = token if isinstance(token, int) else vocabulary.setdefault(token, len(vocabulary))
                columns.append((known, value))
            columns += [(MISSING_ID, math.nan)] * (k - len(some))
        row["top"] = {
            "k": k,
            "ids": _base64(b"".join(id.to_bytes(3, "little") for id, _ in columns)),
            "logprobs": _base64(struct.pack(f"<{len(columns)}e", *(_half(value) for _, value in columns))),
        }
    if ids is None and vocabulary:
        row["vocabulary"] = [_text_or_octets(token) for token in vocabulary]
    if end:
        row["end"] = end
    if origin is not None and (said := origin.to_dict()):
        row["origin"] = said
    return row


def read_logprobs(transcript: Transcript) -> dict[int, AnswerLogprobs]:
    """Read the log probabilities that a transcript carries.

    Returns:
        Index of the assistant's message → its log probabilities; without the answers that have none.

    Raises:
        DataError: `metadata.logprobs` is malformed; says what is wrong.
    """
    kept = transcript.metadata.get("logprobs")
    if kept is None:
        return {}
    if not isinstance(kept, list):
        raise DataError("`metadata.logprobs` is not a list")
    turns = [turn for turn, message in enumerate(transcript.messages) if message.role == "assistant"]
    if len(kept) > len(turns):
        raise DataError(f"`metadata.logprobs` has {len(kept)} answers, the conversation {len(turns)}")
    # An assistant's messages in a prompt were not asked for: the answers are the last ones.
    paired = zip(turns[len(turns) - len(kept) :], kept, strict=True)
    return {turn: parse_logprobs(row) for turn, row in paired if row}


def parse_logprobs(row: Any) -> AnswerLogprobs:
    """Read one answer's log probabilities, as `pack_logprobs` made them or as rows of distill 0.1 hold them.

    Raises:
        DataError: they are malformed.
    """
    if isinstance(row, list):
        row = _from_pairs(row)
    if not isinstance(row, Mapping):
        raise DataError("an answer's logprobs are not an object")
    try:
        return _parse(row)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise DataError(f"an answer's logprobs are malformed: {error or type(error).__name__}") from None


def _parse(row: Mapping[str, Any]) -> AnswerLogprobs:
    import numpy as np

    tokens = tuple(_octets(token) for token in row["tokens"])
    logprobs = np.array([math.nan if value is None else value for value in row["logprobs"]], np.float32)
    logprobs[~(logprobs > UNKNOWN)] = math.nan
    ids = None if row.get("ids") is None else np.array(row["ids"], np.int32)
    vocabulary = None if ids is not None else tuple(_octets(token) for token in row.get("vocabulary") or ())
    top_ids, top_logprobs = _columns(row.get("top"), len(tokens))
    end, said = int(row.get("end", 0)), row.get("origin") or {}
    if not len(tokens) == len(logprobs) == (len(tokens) if ids is None else len(ids)):
        raise ValueError("the columns differ in length")
    if vocabulary is not None and int(top_ids.max(initial=-1)) >= len(vocabulary):
        raise ValueError("a candidate is not in the vocabulary")
    if not 0 <= end <= len(tokens) or (len(logprobs) and float(np.nanmax(logprobs, initial=-math.inf)) > 1e-3):
        raise ValueError("a value is out of range")
    origin = LogprobsOrigin(
        scored=bool(said.get("scored", False)),
        raw=said.get("raw"),
        temperature=said.get("temperature"),
        top_p=said.get("top_p"),
        tokenizer=said.get("tokenizer"),
        end_ids=tuple(int(id) for id in said.get("end_ids", ())),
    )
    return AnswerLogprobs(tokens, np.minimum(logprobs, 0), ids, top_ids, top_logprobs, vocabulary, end, origin)


def _columns(top: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The candidates' ids and log probabilities, (tokens, K) each."""
    import numpy as np

    if not top:
        return np.zeros((count, 0), np.int32), np.zeros((count, 0), np.float32)
    k = int(top["k"])
    octets = np.frombuffer(base64.b64decode(top["ids"], validate=True), np.uint8).reshape(count, k, 3).astype(np.int32)
    ids = octets[..., 0] | octets[..., 1] << 8 | octets[..., 2] << 16
    values = np.frombuffer(base64.b64decode(top["logprobs"], validate=True), "<f2").reshape(count, k)
    logprobs = values.astype(np.float32)
    missing = (ids == MISSING_ID) | ~(logprobs > UNKNOWN)
    return np.where(missing, -1, ids).astype(np.int32), np.where(missing, np.nan, np.minimum(logprobs, 0))


def _from_pairs(row: Sequence[Any]) -> dict[str, Any]:
    """The form of distill 0.1: per token `[token, logprob, [[token, logprob], …]]`, without ids."""
    try:
        top = [[(_octets(token), value) for token, value in likeliest] for _, _, likeliest in row]
        tokens, values = [_octets(token) for token, _, _ in row], [value for _, value, _ in row]
        return pack_logprobs(tokens, values, top=top, k=max(map(len, top), default=0))
    except (TypeError, ValueError) as error:
        raise DataError(f"an answer's logprobs are malformed: {error}") from None


def _likeliest(candidates: Sequence[Candidate], k: int) -> list[tuple[int | bytes, float]]:
    """The K likeliest, each once, likeliest first."""
    best: dict[int | bytes, float] = {}
    for token, value in candidates:
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= UNKNOWN:
            continue
        key = token.encode("utf-8", "replace") if isinstance(token, str) else token
        best[key] = max(value, best.get(key, -math.inf))
    return sorted(best.items(), key=lambda item: -item[1])[:k]


def _rounded(value: float | None) -> float | None:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= UNKNOWN:
        return None
    return round(float(value), _DECIMALS)


def _half(value: float) -> float:
    return value if math.isnan(value) else max(value, -65504.0)  # float16's smallest


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _text_or_octets(token: bytes | str) -> str | list[int]:
    """A token as JSON: its text, or the list of its bytes where they are no UTF-8."""
    if isinstance(token, str):
        token = token.encode("utf-8", "replace")
    try:
        return token.decode()
    except UnicodeDecodeError:
        return list(token)


def _octets(token: Any) -> bytes:
    if isinstance(token, str):
        return token.encode("utf-8", "replace")
    if not isinstance(token, (bytes, list)):
        raise TypeError(f"a token is {type(token).__name__}, not a text or a list of bytes")
    return bytes(token)
