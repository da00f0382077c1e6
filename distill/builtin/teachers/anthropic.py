"""Anthropic's Messages API as teacher; what is asked and answered keeps the OpenAI shape of a transcript."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill import Answer, HTTPTeacherOptions, Message, Request, TeacherError, UsageError
from distill.builtin.teachers.headers import make_headers, read_key
from distill.builtin.teachers.http import HttpClient, endpoint
from distill.builtin.teachers.openai import refuse_overrides
from distill.builtin.teachers.streaming import joined_message

DEFAULT_BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""The API version, a required header."""
_HOST = "api.anthropic.com"

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


SET_BY_DISTILL = {
    "model": "write it behind the colon of --teacher",
    "messages": "they come from the prompts",
    "system": "use --system",
    "stream": "use -T stream=true",
    "max_tokens": "use --max-tokens",
    "temperature": "use --temperature",
    "tools": "they come from the prompts",
}
"""Fields of a request that `body` must not override, and how they are set."""


@dataclass(frozen=True)
class AnthropicOptions(HTTPTeacherOptions):
    """Options of an Anthropic teacher; see `HTTPTeacherOptions` for the common ones.

    Attributes:
        base_url: where `/v1/messages` is; default: `ANTHROPIC_BASE_URL`, else Anthropic's own.
        max_tokens: the longest answer where `--max-tokens` does not say; the API wants a limit.
        stream: ask for an event stream, as the API wants it for long answers.
        body: further fields of the request, as JSON, such as `thinking`; they count as parameters.
    """

    api_key_env: str = "ANTHROPIC_API_KEY"
    timeout: float = 300.0
    max_tokens: int = field(default=4096, metadata={"params": True})
    stream: bool = False
    body: dict[str, Any] = field(default_factory=dict, metadata={"params": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_overrides(self.body, SET_BY_DISTILL)
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")

    @property
    def api_url(self) -> str:
        """The server that is asked: the collector finds the prices by it."""
        return (self.base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL).strip()


class AnthropicTeacher:
    """Asks `POST {base_url}/v1/messages`.

    Args:
        options: how to reach the server.
        model: its name there.

    Raises:
        UsageError: no model, no key where one is needed, or a malformed URL or key.
    """

    def __init__(self, options: AnthropicOptions, model: str | None):
        if not model:
            raise UsageError("teacher 'anthropic' needs a model", "write --teacher anthropic:MODEL")
        self._model, self._options = model, options
        url = endpoint(options.api_url.rstrip("/").removesuffix("/v1"), "/v1/messages")
        key = read_key(options.api_key_env, url, None if options.headers else _HOST)
        own = {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
        headers = make_headers(own, key, options.headers)
        self._http = HttpClient(
            url, headers, key_env=options.api_key_env, model=model, timeout=options.timeout, join=joined_message
        )

    async def ask(self, request: Request) -> Answer:
        """Ask once.

        Raises:
            TeacherError: no answer; its flags tell whether asking again may help.
        """
        self._check(request)
        return self._answer(await self._http.post(self._body(request, stream=self._options.stream)))

    async def close(self) -> None:
        """Close the session."""
        await self._http.close()

    def batch_request(self, id: str, request: Request) -> dict[str, Any]:
        """One of the `requests` of a Message Batch."""
        self._check(request)
        return {"custom_id": id, "params": self._body(request, stream=False)}

    def batch_answer(self, row: Mapping[str, Any]) -> Answer:
        """The answer in a line of a Message Batch's results.

        Raises:
            TeacherError: the request failed, was cancelled or expired, or the line is none of a batch's results.
        """
        result = row.get("result")
        if not isinstance(result, Mapping):
            raise TeacherError("the batch's line holds no result")
        if result.get("type") == "errored":
            error = result.get("error")
            nested = isinstance(error, Mapping) and isinstance(error.get("error"), Mapping)
            raise self._http.reported(error if isinstance(error, Mapping) and nested else {"error": error})
        message = result.get("message")
        if result.get("type") != "succeeded" or not isinstance(message, Mapping):
            raise TeacherError(f"the batch left the request unanswered: {result.get('type')}")
        return self._answer(message)

    @staticmethod
    def _check(request: Request) -> None:
        if request.params.seed is not None:
            raise TeacherError("the Messages API has no seed", "leave --seed out", fatal=True)

    def _body(self, request: Request, *, stream: bool) -> dict[str, Any]:
        params = request.params
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": params.max_tokens or self._options.max_tokens,
            "messages": list(_turns(message for message in request.messages if message.role != "system")),
        }
        system = [message.content for message in request.messages if message.role == "system" and message.content]
        if system:
            body["system"] = "\n\n".join(system)
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if params.temperature is not None:
            body["temperature"] = params.temperature
        if stream:
            body["stream"] = True
        return body | self._options.body | dict(params.extra)

    def _answer(self, payload: Mapping[str, Any]) -> Answer:
        blocks = payload.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise TeacherError(f"{self._http.where} sent no content", retryable=True, maybe_paid=True)
        media = next((block for block in blocks if block.get("type") in ("image", "audio", "video", "document")), None)
        if media is not None:
            raise TeacherError(f"the answer is not text alone: it has a block `{media['type']}`", maybe_paid=True)
        text, thinking = _joined(blocks, "text", "text"), _joined(blocks, "thinking", "thinking")
        stop, usage, model = payload.get("stop_reason"), payload.get("usage"), payload.get("model")
        return Answer(
            Message(
                "assistant",
                text,
                reasoning_content=thinking,
                tool_calls=tuple(_call(block) for block in blocks if block.get("type") == "tool_use"),
                refusal=(text or "no reason given") if stop == "refusal" else None,
                reasoning_details=tuple(block for block in blocks if block.get("type") in _THINKING),
            ),
            finish_reason=None if stop is None else _FINISH.get(str(stop), str(stop)),
            usage=_usage(usage) if isinstance(usage, dict) else {},
            model=model if isinstance(model, str) else None,
        )


_THINKING = ("thinking", "redacted_thinking")
"""Blocks of thinking, which are signed: they go back as they came."""


def _turns(messages: Iterable[Message]) -> Iterable[dict[str, Any]]:
    """Messages in the API's shape: a tool's results are blocks of one user message."""
    results: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content or ""}
            results.append(result)
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        blocks = [_use(call) for call in message.tool_calls]
        thinking = [dict(part) for part in message.reasoning_details if part.get("type") in _THINKING]
        if message.content and (blocks or thinking):
            blocks.insert(0, {"type": "text", "text": message.content})
        blocks = [*thinking, *blocks]
        yield {"role": message.role, "content": blocks or message.content or ""}
    if results:
        yield {"role": "user", "content": results}


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call in OpenAI's shape as a `tool_use` block."""
    function = call.get("function") or {}
    try:
        given = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        raise TeacherError(f"the arguments of the tool call {call.get('id')!r} are no JSON") from None
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    """A `tool_use` block as a tool call in OpenAI's shape."""
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return {"id": block.get("id"), "type": "function", "function": {"name": block.get("name"), "arguments": arguments}}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool definition in OpenAI's shape as the API takes it; another shape goes as it is."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    made = {"name": function.get("name"), "input_schema": function.get("parameters") or {"type": "object"}}
    return made | ({"description": function["description"]} if function.get("description") else {})


def _joined(blocks: Sequence[Mapping[str, Any]], kind: str, key: str) -> str | None:
    parts = [block.get(key) for block in blocks if block.get("type") == kind]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The API's usage, with OpenAI's names beside its own: there the tokens read from the cache are of the prompt."""
    counts = [usage.get(key) for key in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    fresh, written, cached = (count if isinstance(count, int) else 0 for count in counts)
    totals = {"prompt_tokens": fresh + written + cached, "completion_tokens": usage.get("output_tokens")}
    return totals | {"prompt_tokens_details": {"cached_tokens": cached}} | dict(usage)
