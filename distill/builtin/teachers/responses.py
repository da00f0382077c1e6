"""OpenAI's Responses API: requests and answers in its shape, and back into that of a transcript."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distill import Answer, Message, Request, TeacherError
from distill.builtin.teachers.reasoning import text_of
from distill.builtin.teachers.streaming import events

PATH = "/responses"

_ENDS = ("response.completed", "response.incomplete", "response.failed")


def request_body(request: Request, model: str) -> dict[str, Any]:
    """The request as the API takes it; nothing is stored at the server.

    Raises:
        TeacherError: a parameter that the API does not have.
    """
    params = request.params
    if params.seed is not None:
        raise TeacherError("the Responses API has no seed", "leave --seed out", fatal=True)
    body: dict[str, Any] = {
        "model": model,
        "input": [item for message in request.messages for item in _items(message)],
        "store": False,
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if params.max_tokens is not None:
        body["max_output_tokens"] = params.max_tokens
    if params.temperature is not None:
        body["temperature"] = params.temperature
    return body


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """A message as items of the input: tool calls and their results are items of their own."""
    if message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content or ""}
        return
    if message.content:
        yield {"role": message.role, "content": message.content}
    for call in message.tool_calls:
        function = call.get("function") or {}
        called = {"name": function.get("name"), "arguments": function.get("arguments") or "{}"}
        yield {"type": "function_call", "call_id": call.get("id"), **called}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool definition of chat completions as the API takes it; another shape goes as it is."""
    function = tool.get("function")
    return {"type": "function", **function} if isinstance(function, Mapping) else dict(tool)


def read_answer(payload: Mapping[str, Any], where: str) -> Answer:
    """The answer in a response.

    Raises:
        TeacherError: there is none.
    """
    output = payload.get("output")
    if not isinstance(output, list):
        raise TeacherError(f"{where} sent no output", retryable=True, maybe_paid=True)
    items = [item for item in output if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or ()]
    parts = [part for part in parts if isinstance(part, dict)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    thoughts = [text_of(item.get("summary")) or text_of(item.get("content")) for item in items if _thinks(item)]
    calls = tuple(_call(item) for item in items if item.get("type") == "function_call")
    model, usage = payload.get("model"), payload.get("usage")
    return Answer(
        Message(
            "assistant",
            "".join(texts) if texts else None,
            reasoning_content="\n\n".join(filter(None, thoughts)) or None,
            tool_calls=calls,
            refusal="".join(refusals) or None,
        ),
        finish_reason=_finish(payload, bool(calls)),
        usage=_usage(usage) if isinstance(usage, dict) else {},
        model=model if isinstance(model, str) else None,
    )


def _thinks(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "reasoning"


def _call(item: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _finish(payload: Mapping[str, Any], calls: bool) -> str | None:
    """The finish reason as chat completions would give it; another status stays as it is, and is no good end."""
    status, details = payload.get("status"), payload.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    if isinstance(reason, str):
        return reason
    if status == "completed":
        return "tool_calls" if calls else "stop"
    return status if isinstance(status, str) else None


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The API's usage, with the names of chat completions beside its own."""
    renamed = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    return {key: value for key, value in renamed.items() if value is not None} | dict(usage)


def joined_response(body: bytes) -> dict[str, Any] | None:
    """A streamed response as a whole one, which its last event holds; None where the stream broke off before it."""
    for _, event in events(body):
        if not isinstance(event, dict):
            continue
        if event.get("type") == "error":
            return {"error": event.get("error") or event}
        if event.get("type") in _ENDS and isinstance(event.get("response"), dict):
            response: dict[str, Any] = event["response"]
            return response
    return None
