"""How likely a server's model finds answers that are there already: vLLM's prompt log probabilities, or an echo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from distill import (
    Answer,
    LogprobsOrigin,
    LogprobsPacker,
    Request,
    TeacherError,
    TokenLogprobs,
    answer_span,
    load_tokenizer,
    make_formatter,
    message_to_dict,
    pack_logprobs,
    prepare_tokenizer,
)
from distill.builtin.teachers.logprobs import IdAsker, id_in, is_id

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What servers write for a token that is a piece of a character."""


_HINT = "score with vLLM, with a server that echoes prompts (-T tokenizer=…), or with a local model, transformers:MODEL"


class Client(Protocol):
    """What is needed of a server, or of several."""

    @property
    def where(self) -> str:
        """Its address, for messages."""
        ...

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Scorer(Protocol):
    """One way to have a server read an answer: what to send where, and how to read what comes."""

    path: str

    def body(self, request: Request, k: int) -> dict[str, Any]:
        """The request's body, without the model."""
        ...

    def refused_ids(self, error: TeacherError) -> bool:
        """Whether a server refused a field about token ids; then it is not sent again."""
        ...

    def read(self, payload: Mapping[str, Any], request: Request, k: int) -> dict[str, Any] | None:
        """The log probabilities as rows keep them; None where the server told none."""
        ...


class PromptScorer(IdAsker):
    """Sends the answer as the end of the prompt to `/chat/completions`, as vLLM allows.

    The server renders the conversation, so that no tokenizer is needed here. It tells tokens by their text: an answer
    with tokens that are pieces of characters cannot be read.
    """

    path = "/chat/completions"

    def __init__(self) -> None:
        super().__init__(asks_ids=True)

    def body(self, request: Request, k: int) -> dict[str, Any]:
        """The request's body, without the model.

        Raises:
            TeacherError: the answer is more than text, of which servers do not tell where it is in the prompt.
        """
        answer = request.messages[-1]
        if answer.tool_calls or answer.reasoning_content or not answer.content:
            raise TeacherError("the answer is more than text", "name the served model's tokenizer: -T tokenizer=…")
        body: dict[str, Any] = {"messages": [message_to_dict(message) for message in request.messages]}
        if request.tools:
            body["tools"] = [dict(tool) for tool in request.tools]
        continued = {"add_generation_prompt": False, "continue_final_message": True, "max_tokens": 1}
        return body | continued | {"prompt_logprobs": k} | ({"return_token_ids": True} if self.asks_ids else {})

    def read(self, payload: Mapping[str, Any], request: Request, k: int) -> dict[str, Any] | None:
        """The log probabilities as rows keep them; None where the server told none.

        Raises:
            TeacherError: the prompt's last tokens are not the answer.
            AttributeError, KeyError, TypeError, ValueError, IndexError: they have another shape than vLLM's.
        """
        told, ids = payload.get("prompt_logprobs"), payload.get("prompt_token_ids")
        if not isinstance(told, list):
            return None
        left = _octets(request.messages[-1].content or "")
        tokens: list[bytes] = []
        own: list[float | None] = []
        top: list[list[tuple[bytes, float]]] = []
        for place in range(len(told) - 1, -1, -1):
            some = told[place] or {}
            # The prompt's own token comes first, also where it is one of the likeliest.
            written = some[str(ids[place])] if ids else next(iter(some.values()), None)
            octets = _octets(written["decoded_token"]) if written else b""
            if not written or not octets or not left.endswith(octets):
                break
            left = left[: len(left) - len(octets)]
            tokens.append(octets)
            own.append(written["logprob"])
            top.append([(_octets(one["decoded_token"]), one["logprob"]) for one in _whole(some)])
            if not left:
                break
        if left:
            hint = "name the served model's tokenizer: -T tokenizer=PATH_OR_ID"
            raise TeacherError("the tokens that the server tells are not the answer's", hint)
        for column in (tokens, own, top):
            column.reverse()
        return pack_logprobs(tokens, own, top=top, k=k, origin=LogprobsOrigin(scored=True, raw=True))


class EchoScorer(IdAsker):
    """Sends the conversation's tokens to `/completions`, and asks for an echo with log probabilities.

    Args:
        tokenizer: the served model's, a folder or a hub id; its chat template renders the conversation.
        asks_ids: ask vLLM to tell tokens by their ids.
    """

    path = "/completions"

    def __init__(self, tokenizer: str, asks_ids: bool):
        self._encoder = prepare_tokenizer(load_tokenizer(tokenizer), make_formatter("chat-template"), "chat-template")
        self._packer = LogprobsPacker(self._encoder)
        super().__init__(asks_ids)

    def body(self, request: Request, k: int) -> dict[str, Any]:
        """The request's body, without the model.

        Raises:
            DataError: the chat template cannot render the conversation.
        """
        ids, _, stop = answer_span(self._encoder, request.messages, request.tools)
        body: dict[str, Any] = {"prompt": ids[:stop], "echo": True, "logprobs": k, "max_tokens": 1, "temperature": 0}
        return body | ({"return_tokens_as_token_ids": True} if self.asks_ids else {})

    def read(self, payload: Mapping[str, Any], request: Request, k: int) -> dict[str, Any] | None:
        """The log probabilities as rows keep them; None where the server told none.

        Raises:
            TeacherError: the tokens are not those that were sent.
            AttributeError, KeyError, TypeError, ValueError, IndexError: they have another shape than OpenAI's.
        """
        told = payload["choices"][0].get("logprobs")
        ids, start, stop = answer_span(self._encoder, request.messages, request.tools)
        if not isinstance(told, dict) or len(told["tokens"]) < stop:
            return None
        answer, here = ids[start:stop], slice(start, stop)
        names, own = told["tokens"][here], told["token_logprobs"][here]
        top = [one or {} for one in told["top_logprobs"][here]] if k else [{} for _ in answer]
        if all(is_id(name) for name in names):
            _check_echo([id_in(name) for name in names] == answer)
            ranked = [sorted(one.items(), key=lambda pair: -pair[1])[:k] for one in top]
            likeliest = [[id_in(name) for name, _ in one] for one in ranked]
            kept = TokenLogprobs(answer, own, likeliest, [[value for _, value in one] for one in ranked])
            return self._packer.pack(kept, LogprobsOrigin(scored=True))
        octets = self._packer.vocabulary.bytes_of(answer)
        _check_echo(all(_says(name, token) for name, token in zip(names, octets, strict=True)))
        return pack_logprobs(
            octets,
            own,
            top=[[(_octets(name), value) for name, value in one.items() if _BROKEN not in name] for one in top],
            k=k,
            end=int(answer[-1] == self._encoder.stop),
            origin=LogprobsOrigin(scored=True, raw=True),
        )


class Scoring:
    """Scores answers by one server, or several.

    Args:
        connect: gives a client for a path.
        body: fields of every request.
        scorer: asks, and reads what comes.
    """

    def __init__(self, connect: Callable[[str], Client], body: Mapping[str, Any], scorer: Scorer):
        self._http, self._body, self._scorer = connect(scorer.path), body, scorer
        self._first, self._tells = asyncio.Lock(), False
        self._cannot: TeacherError | None = None

    async def score(self, request: Request, k: int) -> Answer:
        """Score one answer; the first one is waited for, to see whether the server can.

        Raises:
            TeacherError: there are no log probabilities; its flags tell whether asking again may help.
            DataError: the chat template cannot render the conversation.
        """
        if self._tells:
            return await self._score(request, k)
        async with self._first:
            if self._cannot is not None:
                raise self._cannot
            try:
                answer = await self._score(request, k)
            except TeacherError as error:
                self._cannot = error if error.fatal else None
                raise
            self._tells = True
            return answer

    async def _score(self, request: Request, k: int) -> Answer:
        body = {**self._body, **self._scorer.body(request, k)}
        try:
            payload = await self._http.post(body)
        except TeacherError as error:
            if not self._scorer.refused_ids(error):
                raise self._explained(error) from None
            payload = await self._http.post({**self._body, **self._scorer.body(request, k)})
        try:
            packed = self._scorer.read(payload, request, k)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            packed = None
        if packed is None:
            raise TeacherError(f"{self._http.where} tells nothing of a prompt's tokens", _HINT, fatal=not self._tells)
        usage = payload.get("usage")
        return Answer(request.messages[-1], "stop", usage if isinstance(usage, dict) else {}, logprobs=packed)

    def _explained(self, error: TeacherError) -> TeacherError:
        """A refusal of the fields that ask for the log probabilities is one of every row."""
        if not error.retryable and any(name in error.message for name in ("logprobs", "echo", "final_message")):
            error.fatal, error.hint = True, _HINT
        return error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def _whole(some: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in some.values() if _BROKEN not in (one.get("decoded_token") or _BROKEN)]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _says(name: str, token: bytes) -> bool:
    """Whether a server may call a token so; servers differ in how they write spaces and pieces of characters."""
    return _BROKEN in name or name.strip() == token.decode("utf-8", "replace").strip()


def _check_echo(same: bool) -> None:
    if not same:
        raise TeacherError(
            "the server's tokens are not those that were sent",
            "does -T tokenizer=… name the served model's own tokenizer?",
            fatal=True,
        )
