"""Any server with OpenAI's chat completions (or Responses API), at once or through OpenAI's batch files."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from distill import Answer, HTTPTeacherOptions, Message, Params, Request, TeacherError, UsageError, message_to_dict
from distill.builtin.teachers import responses
from distill.builtin.teachers.endpoints import Endpoints, read_addresses
from distill.builtin.teachers.headers import make_headers, read_key
from distill.builtin.teachers.http import HttpClient, endpoint, error_text
from distill.builtin.teachers.logprobs import LogprobsReader, missing
from distill.builtin.teachers.reasoning import IN_CONTENT, spoken, with_thinking
from distill.builtin.teachers.streaming import joined_chat

if TYPE_CHECKING:
    from distill.builtin.teachers.scoring import Scorer, Scoring

DEFAULT_BASE_URL = "https://api.openai.com/v1"
MOST_LOGPROBS = 20
"""The most top log probabilities per token that the API gives."""
_PATH, _HOST = "/chat/completions", "api.openai.com"

SET_BY_DISTILL = {
    "model": "write it behind the colon of --teacher",
    "messages": "they come from the prompts",
    "n": "use --samples",
    "stream": "use -T stream=true",
    "stream_options": "use -T stream=true",
    "max_tokens": "use --max-tokens",
    "max_completion_tokens": "use --max-tokens, and -T max_tokens_field=max_completion_tokens where it is needed",
    "temperature": "use --temperature",
    "seed": "use --seed",
    "tools": "they come from the prompts",
    "logprobs": "use --logprobs",
    "top_logprobs": "use --logprobs",
}
"""Fields of a request that `body` must not override, and how they are set."""

_ANTHROPICS = ("thinking", "redacted_thinking")
"""Reasoning in the parts of another API, which servers of this one do not know."""

_HINTS = {
    "max_completion_tokens": "add -T max_tokens_field=max_completion_tokens",
    "max_tokens": "leave --max-tokens out, lower it, or name the field with -T max_tokens_field=…",
    "temperature": "leave --temperature out",
    "seed": "leave --seed out",
    "top_logprobs": "leave --logprobs out",
    "logprobs": "leave --logprobs out",
    "reasoning_details": "add -T replay_reasoning=false",
    "stream": "set or leave out -T stream=true",
    "tools": "the model, or the server, takes no tools: leave `tools` out of the prompts",
    "system": "the model takes no system message: leave --system out",
}
"""A name in a refused request's error → the option that helps. The first one that is found counts."""


@dataclass(frozen=True)
class OpenAIOptions(HTTPTeacherOptions):
    """Options of an OpenAI-compatible teacher; see `HTTPTeacherOptions` for the common ones.

    Attributes:
        base_url: where `/chat/completions` is; default: `OPENAI_BASE_URL`, else OpenAI's own. Several addresses, or
            `@FILE` of them, are several servers with the same model.
        max_tokens_field: what the server calls the token limit; default: `max_completion_tokens` on api.openai.com,
            `max_tokens` elsewhere.
        logprobs: ask for the log probability of each token, and of this many most likely ones at its place.
        tokenizer: the served model's tokenizer, a folder or a Hub id: vLLM then tells tokens by their ids, which is
            exact where a token is a piece of a character; default: tokens are told by their bytes.
        replay_reasoning: send the reasoning of earlier answers back, as some servers demand and others refuse;
            default: `reasoning_details` always, other reasoning as soon as the server reports it missing.
        stream: ask for an event stream, for servers that answer, or think, only so.
        api: `responses` asks OpenAI's Responses API instead, which gives summaries of the reasoning and no log
            probabilities.
        body: further fields of the request, as JSON; they count as parameters.
    """

    api_key_env: str = "OPENAI_API_KEY"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    logprobs: int | None = field(default=None, metadata={"params": True})
    tokenizer: str | None = None
    replay_reasoning: bool | None = field(default=None, metadata={"params": True})
    stream: bool = False
    api: Literal["chat", "responses"] = "chat"
    body: dict[str, Any] = field(default_factory=dict, metadata={"params": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise ValueError(f"logprobs must be a number from 0 to {MOST_LOGPROBS}")
        if self.api == "responses" and self.logprobs is not None:
            raise ValueError("the Responses API gives no log probabilities: leave --logprobs or api=responses out")
        refuse_overrides(self.body, SET_BY_DISTILL)

    @property
    def servers(self) -> str:
        """The addresses that are asked, as `read_addresses` takes them."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).strip()

    @property
    def api_url(self) -> str:
        """The first server that is asked: the collector finds the prices by it."""
        return read_addresses(self.servers)[0]


class OpenAITeacher:
    """Asks `POST {base_url}/chat/completions`, or `/responses`.

    Args:
        options: how to reach the server.
        model: its name there.

    Raises:
        UsageError: no model, no key where one is needed, or a malformed URL, key or header.
    """

    def __init__(self, options: OpenAIOptions, model: str | None):
        if not model:
            raise UsageError("teacher 'openai' needs a model", "write --teacher openai:MODEL")
        self._model, self._options = model, options
        self._path, join = _PATH, joined_chat
        if options.api == "responses":
            self._path, join = responses.PATH, responses.joined_response
        addresses = read_addresses(options.servers)
        needs = None if options.headers else _HOST
        keys = [read_key(options.api_key_env, endpoint(address, self._path), needs) for address in addresses]
        key = next((key for key in keys if key), None)
        official = urlsplit(addresses[0]).hostname == _HOST
        self._max_tokens = options.max_tokens_field or ("max_completion_tokens" if official else "max_tokens")
        self._replay = bool(options.replay_reasoning)
        self._reasoning_name: str = "reasoning_content"
        asks = options.logprobs is not None
        self._reader = LogprobsReader(options.logprobs or 0, official, options.tokenizer) if asks else None
        self._first, self._tells = asyncio.Lock(), not asks
        self._tells_nothing: TeacherError | None = None
        headers = make_headers({"Authorization": f"Bearer {key}"} if key else {}, key, options.headers)

        def connect(path: str) -> Endpoints | HttpClient:
            def client(address: str) -> HttpClient:
                words = {"key_env": options.api_key_env, "model": model}
                url = endpoint(address.removesuffix(_PATH), path)
                return HttpClient(url, headers, timeout=options.timeout, join=join, **words)

            several = len(addresses) > 1 or options.servers.startswith("@")
            return Endpoints(options.servers, client) if several else client(addresses[0])

        self._connect, self._official = connect, official
        self._http = connect(self._path)
        self._scoring: Scoring | None = None

    async def ask(self, request: Request) -> Answer:
        """Ask; where log probabilities are wanted, the first answer is waited for, to see whether it has them.

        Raises:
            TeacherError: no answer; its flags tell whether asking again may help.
        """
        if not self._tells:
            async with self._first:
                if (answer := await self._first_answer(request)) is not None:
                    return answer
        return await self._ask(request)

    async def _first_answer(self, request: Request) -> Answer | None:
        """The first answer, with log probabilities or the error that ends the run; None where it was there before."""
        if self._tells:
            return None
        if self._tells_nothing is not None:
            raise self._tells_nothing
        try:
            answer = await self._ask(request)
        except TeacherError as error:
            self._tells_nothing = error if error.fatal else None
            raise
        if answer.message.content:
            told = answer.logprobs if isinstance(answer.logprobs, Mapping) else None
            self._tells_nothing = missing(told, self._options.logprobs or 0, self._http.where, self._model)
            if self._tells_nothing is not None:
                raise self._tells_nothing
            self._tells = True
        return answer

    async def _ask(self, request: Request) -> Answer:
        """Ask once; once more where the server wants earlier reasoning back, or refuses to tell tokens' ids."""
        try:
            payload = await self._http.post(self._body(request))
        except TeacherError as error:
            if self._reader is None or not self._reader.refused_ids(error):
                if not self._misses_reasoning(error, request):
                    raise _with_hint(error, self._http.where) from None
                self._replay = True
            payload = await self._http.post(self._body(request))
        return self._answer(payload, request)

    async def score(self, request: Request, logprobs: int) -> Answer:
        """Have the server read the answer with which the request ends; see `distill.ScoringServer`."""
        if self._scoring is None:
            from distill.builtin.teachers.scoring import EchoScorer, PromptScorer, Scoring

            tokenizer, body = self._options.tokenizer, {"model": self._model, **self._options.body}
            scorer: Scorer = PromptScorer() if tokenizer is None else EchoScorer(tokenizer, not self._official)
            self._scoring = Scoring(self._connect, body, scorer)
        return await self._scoring.score(request, logprobs)

    def servers(self) -> dict[str, dict[str, int]]:
        """How many requests each server has answered and failed; empty for a single one."""
        return self._http.counts() if isinstance(self._http, Endpoints) else {}

    async def close(self) -> None:
        """Close the sessions."""
        for http in (self._http, self._scoring):
            if http is not None:
                await http.close()

    def batch_request(self, id: str, request: Request) -> dict[str, Any]:
        """The line of a batch file that asks the request."""
        return {"custom_id": id, "method": "POST", "url": f"/v1{self._path}", "body": self._body(request, stream=False)}

    def batch_answer(self, row: Mapping[str, Any]) -> Answer:
        """The answer in a line of a batch's output file or error file.

        Raises:
            TeacherError: the line holds an error, or a response that is no answer.
        """
        if row.get("error"):
            raise self._http.reported(row)
        response = row.get("response")
        payload = response.get("body") if isinstance(response, Mapping) else None
        if not isinstance(response, Mapping) or not isinstance(payload, dict):
            raise TeacherError("the batch's line holds no response")
        if payload.get("error") or response.get("status_code", 200) != 200:
            raise self._http.reported(payload)
        return self._answer(payload)

    def _misses_reasoning(self, error: TeacherError, request: Request) -> bool:
        """Whether a server refused because reasoning is missing that the request could have contained."""
        brings = any(message.reasoning_content for message in request.messages)
        undecided = self._options.replay_reasoning is None and not self._replay
        return brings and undecided and not error.retryable and "reasoning" in error.message.lower()

    def _body(self, request: Request, *, stream: bool | None = None) -> dict[str, Any]:
        params, options = request.params, self._options
        streams = options.stream if stream is None else stream
        if options.api == "responses":
            body = responses.request_body(request, self._model) | ({"stream": True} if streams else {})
            return body | options.body | dict(params.extra)
        body = {"model": self._model, "messages": [self._message(one) for one in request.messages]}
        if request.tools:
            body["tools"] = [dict(tool) for tool in request.tools]
        if params.max_tokens is not None:
            body[self._max_tokens] = params.max_tokens
        if params.temperature is not None:
            body["temperature"] = params.temperature
        if params.seed is not None:
            body["seed"] = params.seed
        if self._reader is not None:
            body |= self._reader.fields()
        if streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body | options.body | dict(params.extra)

    def _message(self, message: Message) -> dict[str, Any]:
        """A message as servers take it back; DeepSeek's, for one, refused reasoning once and demands it now."""
        row: dict[str, Any] = message_to_dict(message, without=("refusal", "weight"))
        details = [part for part in row.pop("reasoning_details", ()) if part.get("type") not in _ANTHROPICS]
        if details and self._options.replay_reasoning is not False:
            row["reasoning_details"] = details
        reasoning = row.pop("reasoning_content", None)
        if not self._replay or reasoning is None or "reasoning_details" in row:
            return row
        if self._reasoning_name == IN_CONTENT:
            return row | {"content": with_thinking(reasoning, message.content)}
        return row | {self._reasoning_name: reasoning}

    def _answer(self, payload: Mapping[str, Any], request: Request | None = None) -> Answer:
        if self._options.api == "responses":
            return responses.read_answer(payload, self._http.where)
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            told = error_text(payload)
            what = f"{self._http.where} sent no choice" + (f": {told}" if told else "")
            raise TeacherError(what, retryable=True, maybe_paid=True)
        if isinstance(choice.get("error"), (dict, str)) and choice["error"]:
            raise _paid(self._http.reported(choice))
        calls = message.get("tool_calls") or ()
        if not calls and isinstance(message.get("function_call"), dict):
            calls = [{"type": "function", "function": message["function_call"]}]
        if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
            what = f"{self._http.where} sent tool calls that are no objects"
            raise TeacherError(what, retryable=True, maybe_paid=True)
        said = spoken(message)
        if said.media:
            raise TeacherError(f"the answer is not text alone: it has {said.media}", maybe_paid=True)
        if said.name in ("reasoning", "reasoning_content", IN_CONTENT):
            self._reasoning_name = said.name
        usage = payload.get("usage")
        return Answer(
            Message(
                "assistant",
                said.content,
                reasoning_content=said.reasoning,
                tool_calls=tuple(calls),
                refusal=_str(message.get("refusal")),
                reasoning_details=said.details,
            ),
            finish_reason=_reason(choice.get("finish_reason")),
            usage=usage if isinstance(usage, dict) else {},
            model=_str(payload.get("model")),
            logprobs=self._logprobs(choice, said.content or "", request),
        )

    def _logprobs(self, choice: Mapping[str, Any], text: str, request: Request | None) -> dict[str, Any] | None:
        if self._reader is None:
            return None
        params = Params() if request is None else request.params
        return self._reader.read(choice, text, params, {**self._options.body, **dict(params.extra)})


def refuse_overrides(body: Mapping[str, Any], taken: Mapping[str, str]) -> None:
    """Refuse fields of `body` that distill sets itself.

    Raises:
        ValueError: names the field, and the option that sets it.
    """
    for name in body:
        if name in taken:
            raise ValueError(f"body must not set {name!r}: {taken[name]}")


def _with_hint(error: TeacherError, where: str) -> TeacherError:
    """Add the option that helps to a refused request's error, where the server names its field."""
    if error.hint is None and not error.retryable and not error.fatal:
        reason = error.message.partition(where)[2]
        names = set(re.findall(r"\w+", reason))
        error.hint = next((hint for name, hint in _HINTS.items() if name in names), None)
    return error


def _paid(error: TeacherError) -> TeacherError:
    """An error that came beside a part of an answer: it costs money, and the server is there."""
    error.maybe_paid, error.down = True, False
    return error


def _reason(value: Any) -> str | None:
    """A finish reason; one that is no text is none that is known to be good."""
    return value if isinstance(value, (str, type(None))) else json.dumps(value)


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None
