"""`llm logs --json`: one response per row, joined by their conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill import DialectSpec, RefusedRow, Source
from distill.builtin.dialects.base import REFUSED, Row

_WHOLE = {"stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence", "STOP", "eos"}


def _is_part(row: Row) -> bool:
    return {"prompt", "response", "conversation_id", "model"} <= set(row)


def _read(row: Row, where: str) -> dict[str, Any]:
    raise RefusedRow(f"{where}: a single response of `llm logs`", "give the whole export")


def _join(rows: Iterable[tuple[Source, dict[str, Any]]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Join responses by `conversation_id`, in the order of their ids, which are times."""
    found: dict[str, list[tuple[Source, dict[str, Any]]]] = {}
    for source, row in rows:
        found.setdefault(str(row.get("conversation_id") or source), []).append((source, row))
    for name, responses in found.items():
        responses.sort(key=lambda response: (str(response[1].get("datetime_utc")), str(response[1].get("id"))))
        yield responses[0][0], _conversation(name, [row for _, row in responses])


def _conversation(name: str, responses: list[dict[str, Any]]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    system = ""
    row: dict[str, Any] = {"id": name, "messages": messages}
    for response in responses:
        if response.get("system") and response["system"] != system:
            system = response["system"]
            messages.append({"role": "system", "content": system})
        for result in response.get("tool_results") or ():
            messages.append(_result(result))
        if response.get("prompt") or not response.get("tool_results"):
            messages.append({"role": "user", "content": response.get("prompt") or ""})
        messages.append(_answer(response))
        if reason := _incomplete(response):
            row[REFUSED] = reason
    last = responses[-1]
    row["metadata"] = {"model": last.get("resolved_model") or last.get("model")}
    if last.get("conversation_name"):
        row["metadata"]["conversation_name"] = last["conversation_name"]
    if reason := _finish(last):
        row["metadata"]["finish_reason"] = reason
    tools = {tool["name"]: tool for response in responses for tool in response.get("tools") or () if tool.get("name")}
    row["tools"] = [_tool(tool) for tool in tools.values()]
    return row


def _answer(response: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": response.get("response") or ""}
    calls = [_call(call) for call in response.get("tool_calls") or ()]
    if calls:
        message.update(tool_calls=calls, content=message["content"] or None)
    reason = _finish(response)
    if reason is not None and reason not in _WHOLE:
        message["train"] = False  # an earlier answer that was cut off; the last one's reason is in the metadata
    return message


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments")
    function = {"name": call.get("name"), "arguments": arguments if isinstance(arguments, str) else "{}"}
    made = {"type": "function", "function": function}
    return {"id": call["tool_call_id"], **made} if call.get("tool_call_id") else made


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "tool", "content": str(result.get("output") or ""), "name": result.get("name")}
    return {**message, "tool_call_id": result["tool_call_id"]} if result.get("tool_call_id") else message


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool.get("description") or ""}
    schema = tool.get("input_schema")
    return {"type": "function", "function": {**function, "parameters": schema} if schema else function}


def _finish(response: Mapping[str, Any]) -> str | None:
    """The finish reason in the provider's own response, where llm kept it."""
    raw = response.get("response_json")
    if not isinstance(raw, Mapping):
        return None
    choices = raw.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    reason = raw.get("finish_reason") or raw.get("stop_reason") or first.get("finish_reason")
    return reason if isinstance(reason, str) else None


def _incomplete(response: Mapping[str, Any]) -> str | None:
    """Why the log does not hold all that the model was given; None where it does."""
    if response.get("attachments"):
        return "a prompt has attachments: distill trains on text only"
    if response.get("prompt_fragments") or response.get("system_fragments"):
        return "a prompt has fragments, whose text is not in the log"
    return None


LLM_LOGS = DialectSpec(
    "llm-logs",
    "`llm logs --json`: prompt, response, conversation_id",
    lambda row: False,
    _read,
    (),
    is_part=_is_part,
    join=_join,
)
