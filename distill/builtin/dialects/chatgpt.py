"""ChatGPT's export, `conversations.json`: each conversation is a tree of messages, of which one path was shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill import DataError, DialectSpec, RefusedRow
from distill.builtin.dialects.base import Row

_COLUMNS = ("mapping", "current_node", "conversation_id", "id", "title", "create_time", "update_time")
_NOISE = (
    *("moderation_results", "plugin_ids", "conversation_template_id", "gizmo_id", "gizmo_type", "is_archived"),
    *("safe_urls", "voice", "async_status", "disabled_tool_ids", "is_starred", "blocked_urls", "conversation_origin"),
    *("default_model_slug", "is_do_not_remember", "memory_scope", "sugar_item_id", "context_scopes", "owner"),
)
_SKIPPED = ("reasoning_recap", "model_editable_context", "app_pairing_content")
_TEXTS = ("text", "code", "execution_output", "tether_browsing_display", "tether_quote", "system_error")


def _matches(row: Row) -> bool:
    return isinstance(row.get("mapping"), dict) and "current_node" in row


def _read(row: Row, where: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    thoughts: list[str] = []
    metadata: dict[str, Any] = {"title": row["title"]} if row.get("title") else {}
    for node in _path(row, where):
        message = node.get("message")
        if isinstance(message, Mapping):
            _add(messages, message, thoughts, metadata, where)
    if not messages:
        raise RefusedRow(f"{where}: the conversation is empty", "leave such rows out")
    return {"id": row.get("conversation_id") or row.get("id"), "messages": messages, "metadata": metadata}


def _path(row: Row, where: str) -> list[Mapping[str, Any]]:
    """The nodes that the user sees, from the first to the current one: edits and retries are other branches."""
    nodes, name = row["mapping"], row.get("current_node")
    path: list[Mapping[str, Any]] = []
    while name is not None:
        node = nodes.get(name)
        if not isinstance(node, Mapping) or len(path) > len(nodes):
            raise DataError(f"{where}: the node {name!r} of `mapping` is missing or in a circle")
        path.append(node)
        name = node.get("parent")
    return path[::-1]


def _add(
    messages: list[dict[str, Any]],
    message: Mapping[str, Any],
    thoughts: list[str],
    metadata: dict[str, Any],
    where: str,
) -> None:
    """Add a message of the export."""
    author = message.get("author") or {}
    role, content, about = author.get("role"), message.get("content") or {}, message.get("metadata") or {}
    kind = content.get("content_type")
    if kind == "thoughts":
        thoughts += [str(one.get("content") or one.get("summary") or "") for one in content.get("thoughts") or ()]
        return
    text = _text(content, kind, where)
    if text is None or (role == "system" and not text.strip()):
        return
    if role == "assistant":
        _add_answer(messages, message, text, thoughts)
        if about.get("model_slug"):
            metadata["model"] = about["model_slug"]
        details = about.get("finish_details") or {}
        finish = details.get("type") if message.get("status") != "in_progress" else "in_progress"
        metadata.pop("finish_reason", None)
        if finish:
            metadata["finish_reason"] = finish
    elif role == "tool":
        call_id = _last_call(messages)
        result = {"role": "tool", "content": text, "name": author.get("name")}
        messages.append({**result, "tool_call_id": call_id} if call_id else result)
    else:
        messages.append({"role": "system" if kind == "user_editable_context" else role, "content": text})


def _add_answer(messages: list[dict[str, Any]], message: Mapping[str, Any], text: str, thoughts: list[str]) -> None:
    """Add the assistant's text, or its call of a tool."""
    recipient = message.get("recipient") or "all"
    made: dict[str, Any] = {"role": "assistant", "content": text}
    if recipient != "all":
        function = {"name": recipient, "arguments": _arguments(text)}
        call = {"id": str(message.get("id")), "type": "function", "function": function}
        before = messages[-1] if messages else {}
        if before.get("role") == "assistant" and not before.get("tool_calls") and not thoughts:
            before["tool_calls"] = [call]
            return
        made.update(content=None, tool_calls=[call])
    if thoughts:
        made["reasoning_content"] = "\n\n".join(thoughts)
        thoughts.clear()
    if message.get("weight") == 0:
        made["train"] = False
    messages.append(made)


def _arguments(text: str) -> str:
    """A call's text as JSON: it is an object already, or code."""
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    return text if is_object else json.dumps({"input": text}, ensure_ascii=False)


def _last_call(messages: list[dict[str, Any]]) -> str | None:
    for message in reversed(messages):
        if message.get("tool_calls"):
            return str(message["tool_calls"][-1]["id"])
    return None


def _text(content: Mapping[str, Any], kind: Any, where: str) -> str | None:
    """A content's text; None for what the model did not say or see as text."""
    if kind in _SKIPPED:
        return None
    if kind == "user_editable_context":
        about = (content.get("user_profile"), content.get("user_instructions"))
        return "\n\n".join(str(text) for text in about if text)
    if kind in _TEXTS or kind is None:
        parts = content.get("parts")
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return "".join(parts)
        return str(content.get("text") or content.get("result") or "")
    if kind == "multimodal_text" and all(isinstance(part, str) for part in content.get("parts") or ()):
        return "".join(content.get("parts") or ())
    raise RefusedRow(f"{where}: a message holds {kind}: distill trains on text only", "leave such rows out")


CHATGPT = DialectSpec("chatgpt", "ChatGPT's export: mapping, current_node", _matches, _read, (*_COLUMNS, *_NOISE))
