"""Any server that speaks OpenAI's chat completions, at once or through OpenAI's batch files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from distill import Answer, Message, Request, TeacherError, UsageError, message_to_dict
from distill.builtin.teachers.http import HttpClient, endpoint, read_key

DEFAULT_BASE_URL = "https://api.openai.com/v1"
MOST_LOGPROBS = 20
"""The most top log probabilities a token that the API gives."""
_PATH, _HOST = "/chat/completions", "api.openai.com"


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Options of an OpenAI-compatible teacher.

    Attributes:
        base_url: where `/chat/completions` is; default: `OPENAI_BASE_URL`, else OpenAI's own.
        api_key_env: the environment variable that holds the key; servers that need none may leave it unset.
        timeout: seconds for a whole request, its answer included.
        max_tokens_field: what the server calls the token limit; default: `max_completion_tokens` on api.openai.com,
            `max_tokens` elsewhere.
        logprobs: ask for the log probability of each token, and of so many likeliest ones at its place.
        replay_reasoning: send the reasoning of earlier answers back, as some servers demand and others refuse;
            default: as soon as the server says that it is missing.
        body: further fields of the request, as JSON; they count as parameters.
    """

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    logprobs: int | None = field(default=None, metadata={"params": True})
    replay_reasoning: bool | None = field(default=None, metadata={"params": True})
    body: dict[str, Any] = field(default_factory=dict, metadata={"params": True})

    def __post_init__(self) -> None:
        if not self.timeout > 0 or math.isinf(self.timeout):
            raise ValueError("timeout must be a number of seconds above 0")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise ValueError(f"logprobs must be a number from 0 to {MOST_LOGPROBS}")

    @property
    def api_url(self) -> str:
        """The server that is asked: the collector finds the prices by it."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).strip()


class OpenAITeacher:
    """Asks `POST {base_url}/chat/completions`.

    Args:
        options: how to reach the server.
        model: its name there.

    Raises:
        UsageError: no model, no key where one is needed, or a malformed URL or key.
    """

    def __init__(self, options: OpenAIOptions, model: str | None):
        if not model:
            raise UsageError("teacher 'openai' needs a model", "write --teacher openai:MODEL")
        self._model, self._options = model, options
        url = endpoint(options.api_url, _PATH)
        key = read_key(options.api_key_env, url, _HOST)
        official = urlsplit(url).hostname == _HOST
        self._max_tokens = options.max_tokens_field or ("max_completion_tokens" if official else "max_tokens")
        self._replay = bool(options.replay_reasoning)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = HttpClient(
            url, headers, key=key, key_env=options.api_key_env, model=model, timeout=options.timeout
        )

    async def ask(self, request: Request) -> Answer:
        """Ask once; once more where the server wants the reasoning of earlier answers back.

        Raises:
            TeacherError: no answer; says whether asking again may help.
        """
        try:
            payload = await self._http.post(self._body(request))
        except TeacherError as error:
            if not self._misses_reasoning(error, request):
                raise
            self._replay = True
            payload = await self._http.post(self._body(request))
        return self._answer(payload)

    async def close(self) -> None:
        """Close the session."""
        await self._http.close()

    def batch_request(self, id: str, request: Request) -> dict[str, Any]:
        """The line of a batch file that asks the request."""
        return {"custom_id": id, "method": "POST", "url": f"/v1{_PATH}", "body": self._body(request)}

    def batch_answer(self, row: Mapping[str, Any]) -> Answer:
        """The answer in a line of a batch's output file or error file.

        Raises:
            TeacherError: the line holds an error, or a response that is no answer.
        """
        if row.get("error"):
            raise self._http.reported(row)
        response = row.get("response")
        payload = response.get("body") if isinstance(response, dict) else None
        if not isinstance(payload, dict):
            raise TeacherError("the batch's line holds no response")
        if payload.get("error") or response.get("status_code", 200) != 200:
            raise self._http.reported(payload)
        return self._answer(payload)

    def _misses_reasoning(self, error: TeacherError, request: Request) -> bool:
        """Whether a refusal says that reasoning is missing which the request could have brought."""
        brings = any(message.reasoning_content for message in request.messages)
        undecided = self._options.replay_reasoning is None and not self._replay
        return brings and undecided and not error.retryable and "reasoning" in error.message.lower()

    def _body(self, request: Request) -> dict[str, Any]:
        params = request.params
        messages = [_message(one, self._replay) for one in request.messages]
        body: dict[str, Any] = {"model": self._model, "messages": messages}
        if request.tools:
            body["tools"] = [dict(tool) for tool in request.tools]
        if params.max_tokens is not None:
            body[self._max_tokens] = params.max_tokens
        if params.temperature is not None:
            body["temperature"] = params.temperature
        if params.seed is not None:
            body["seed"] = params.seed
        if self._options.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self._options.logprobs}
        return body | self._options.body

    def _answer(self, payload: Mapping[str, Any]) -> Answer:
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise TeacherError(f"{self._http.where} sent no choice", retryable=True, maybe_paid=True)
        content, calls = _content(message.get("content")), message.get("tool_calls") or ()
        if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
            what = f"{self._http.where} sent tool calls that are no objects"
            raise TeacherError(what, retryable=True, maybe_paid=True)
        usage, finish, model = payload.get("usage"), choice.get("finish_reason"), payload.get("model")
        return Answer(
            Message(
                "assistant",
                content,
                reasoning_content=_str(message.get("reasoning_content")) or _str(message.get("reasoning")),
                tool_calls=tuple(calls),
                refusal=_str(message.get("refusal")),
            ),
            finish_reason=_str(finish),
            usage=usage if isinstance(usage, dict) else {},
            model=_str(model),
            logprobs=None if self._options.logprobs is None else _logprobs(choice.get("logprobs")),
        )


def _message(message: Message, reasoning: bool) -> dict[str, Any]:
    """A message as servers take it back; DeepSeek's, for one, refused reasoning once and demands it now."""
    row = message_to_dict(message)
    for key in ("refusal", "weight") if reasoning else ("reasoning_content", "refusal", "weight"):
        row.pop(key, None)
    return row


def _content(value: Any) -> str | None:
    """Text, or a list of parts with text; anything else counts as no content."""
    if isinstance(value, list):
        return "".join(_str(part.get("text")) or "" for part in value if isinstance(part, dict))
    return _str(value)


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _logprobs(value: Any) -> list[Any] | None:
    """The API's log probabilities, as `Answer.logprobs` holds them; None where the server sent none."""
    tokens = value.get("content") if isinstance(value, dict) else None
    try:
        return tokens and [[*_pair(one), [_pair(top) for top in one.get("top_logprobs") or ()]] for one in tokens]
    except (AttributeError, TypeError):  # of another shape: no reason to lose a paid answer
        return None


def _pair(token: Mapping[str, Any]) -> list[Any]:
    """`[token, logprob]`. A token may be a part of a character: then only its bytes say what it is."""
    text, octets, logprob = token.get("token"), token.get("bytes"), token.get("logprob")
    whole = octets is None or (isinstance(text, str) and list(text.encode()) == octets)
    return [text if whole else octets, round(logprob, 6) if isinstance(logprob, float) else logprob]
