"""Log probabilities as OpenAI's API and the servers that copy it send them, read into the form that rows keep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from distill import LogprobsOrigin, Params, TeacherError, Vocabulary, load_tokenizer, pack_logprobs

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_SHAPING = ("top_k", "min_p", "typical_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias")
"""Fields of a request with which answers are no plain samples of the model's distribution."""


class IdAsker:
    """Asks vLLM to tell tokens by their ids, until a server refuses to.

    Args:
        asks_ids: whether to ask at first.
    """

    def __init__(self, asks_ids: bool):
        self.asks_ids = asks_ids

    def refused_ids(self, error: TeacherError) -> bool:
        """Whether a server refused the fields about token ids; then they are not sent again."""
        refused = self.asks_ids and not error.retryable and "return_token" in error.message
        self.asks_ids = self.asks_ids and not refused
        return refused


class LogprobsReader(IdAsker):
    """Asks one server for log probabilities, and reads them.

    Args:
        k: how many likeliest tokens.
        official: the server is OpenAI's: it refuses unknown fields, and its defaults are known.
        tokenizer: the served model's, a folder or a hub id; None: not known.
    """

    def __init__(self, k: int, official: bool, tokenizer: str | None):
        self._k, self._official, self._tokenizer = k, official, tokenizer
        self._vocabulary: Vocabulary | None = None
        super().__init__(asks_ids=not official)

    def fields(self) -> dict[str, Any]:
        """The fields of a request that ask for them; vLLM takes those about token ids."""
        fields: dict[str, Any] = {"logprobs": True, "top_logprobs": self._k}
        if self.asks_ids and self._tokenizer is not None:
            fields["return_tokens_as_token_ids"] = True
        elif self.asks_ids:
            fields["return_token_ids"] = True
        return fields

    def read(
        self, choice: Mapping[str, Any], text: str, params: Params, body: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The log probabilities of an answer; None where the server sent none that can be read.

        Args:
            choice: as the server sent it.
            text: the answer's content.
            params, body: what the answer was asked with.

        Raises:
            TeacherError: tokens come as ids, and the tokenizer that they belong to is not known.
        """
        told = choice.get("logprobs")
        content = told.get("content") if isinstance(told, dict) else None
        if not isinstance(content, list) or not content:
            return None
        try:
            return self._pack(content, choice.get("token_ids"), text, self._origin(params, body))
        except (AttributeError, KeyError, TypeError, ValueError):  # of another shape: no reason to lose a paid answer
            return None

    def _pack(
        self, content: Sequence[Mapping[str, Any]], sent_ids: Any, text: str, origin: dict[str, Any]
    ) -> dict[str, Any]:
        ids = _ids(content, sent_ids)
        by_id = all(is_id(one["token"]) for one in content)
        if by_id:
            vocabulary = self._known_vocabulary()
            tokens = vocabulary.bytes_of(ids or ())
            origin["tokenizer"] = vocabulary.fingerprint
        else:
            tokens = [_octets(one) for one in content]
        top = []
        for one in content:
            likeliest = one.get("top_logprobs") or ()
            top.append([(id_in(some["token"]) if by_id else _octets(some), some.get("logprob")) for some in likeliest])
        end = int(_ends_beyond(tokens, text))
        if by_id and end and ids:
            origin["end_ids"] = (ids[-1],)
        return pack_logprobs(
            tokens,
            [one.get("logprob") for one in content],
            ids=ids if by_id else None,
            top=top,
            k=self._k,
            end=end,
            origin=LogprobsOrigin(**origin),
        )

    def _known_vocabulary(self) -> Vocabulary:
        if self._tokenizer is None:
            raise TeacherError(
                "the server writes tokens as ids",
                "name the served model's tokenizer: -T tokenizer=PATH_OR_ID",
                fatal=True,
            )
        if self._vocabulary is None:
            tokenizer = load_tokenizer(self._tokenizer)
            self._vocabulary = Vocabulary(tokenizer, tokenizer.all_special_ids)
        return self._vocabulary

    def _origin(self, params: Params, body: Mapping[str, Any]) -> dict[str, Any]:
        default = 1.0 if self._official else None  # elsewhere a model may bring defaults of its own
        temperature, top_p = params.temperature, body.get("top_p", default)
        shaped = any(body.get(name) for name in _SHAPING)
        return {
            "temperature": default if temperature is None else float(temperature),
            "top_p": None if shaped or top_p is None else float(top_p),
        }


def missing(answer_logprobs: Mapping[str, Any] | None, k: int, where: str, model: str) -> TeacherError | None:
    """The error that ends a collection at its first answer, where the server does not tell what was asked for."""
    hint = "leave --logprobs out; or take a server or a model that gives them: vLLM, llama.cpp and OpenAI's gpt-4.1 do"
    if answer_logprobs is None:
        return TeacherError(f"{where} gives no log probabilities for {model!r}", hint, fatal=True)
    if k and "top" not in answer_logprobs:
        hint = "ask for --logprobs 0, the written tokens' alone: --loss chunks needs no more"
        return TeacherError(f"{where} gives no likeliest tokens for {model!r}", hint, fatal=True)
    return None


def _octets(token: Mapping[str, Any]) -> bytes:
    """A token's bytes; some servers send its text only."""
    octets = token.get("bytes")
    return bytes(octets) if isinstance(octets, list) else str(token["token"]).encode("utf-8", "replace")


def is_id(name: str) -> bool:
    """Whether a server tells a token by its id."""
    return _TOKEN_ID.fullmatch(name) is not None


def id_in(name: str) -> int:
    """The id by which a server tells a token.

    Raises:
        ValueError: it tells the token by its text.
    """
    found = _TOKEN_ID.fullmatch(name)
    if found is None:
        raise ValueError("a token among others that are ids is none")
    return int(found.group(1))


def _ids(content: Sequence[Mapping[str, Any]], sent: Any) -> list[int] | None:
    if all(is_id(one["token"]) for one in content):
        return [id_in(one["token"]) for one in content]
    if isinstance(sent, list) and len(sent) >= len(content) and all(isinstance(id, int) for id in sent):
        return sent[: len(content)]
    return None


def _ends_beyond(tokens: Sequence[bytes], text: str) -> bool:
    """Whether the last token is none of the text's: an end-of-turn marker."""
    said, written = b"".join(tokens), text.strip().encode("utf-8", "replace")
    without = said[: len(said) - len(tokens[-1])]
    return bool(written) and not said.rstrip().endswith(written) and without.rstrip().endswith(written)
