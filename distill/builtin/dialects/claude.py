"""Claude's chats: the data export of claude.ai, and the session files of Claude Code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill import DataError, DialectSpec, RefusedRow, Source
from distill.builtin.dialects.base import REFUSED, Row

_COLUMNS = ("uuid", "name", "chat_messages", "created_at", "updated_at", "account", "summary", "project", "settings")


def _matches(row: Row) -> bool:
    return isinstance(row.get("chat_messages"), list)


def _read(row: Row, where: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(row["chat_messages"]):
        if not isinstance(item, Mapping) or item.get("sender") not in ("human", "assistant"):
            raise DataError(f"{where}: chat message {number} is by neither human nor assistant")
        content = _content(item, f"{where}: chat message {number}")
        if content:
            messages.append({"role": "user" if item["sender"] == "human" else "assistant", "content": content})
    if not messages:
        raise RefusedRow(f"{where}: the conversation is empty", "leave such rows out")
    metadata = {"title": row["name"]} if row.get("name") else {}
    return {"id": row.get("uuid"), "messages": messages, "metadata": metadata}


def _content(item: Mapping[str, Any], where: str) -> Any:
    """A message's parts, with the text of its attachments; its `text` where there are no parts."""
    attached = [one for one in item.get("attachments") or () if isinstance(one, Mapping)]
    if any(not one.get("extracted_content") for one in attached) or (item.get("files") and not attached):
        raise RefusedRow(f"{where} has files whose text is not in the export", "leave such rows out")
    parts = [part for part in item.get("content") or () if not _is_mark(part)]
    if not parts and item.get("text"):
        parts = [{"type": "text", "text": item["text"]}]
    files = [{"type": "text", "text": f"{one.get('file_name')}:\n{one['extracted_content']}\n\n"} for one in attached]
    return [*files, *_with_call_ids(parts)]


def _is_mark(part: Any) -> bool:
    """Whether a part is neither text, thinking, call nor result: the export marks limits and flags as parts too."""
    return isinstance(part, Mapping) and part.get("type") in ("token_budget", "flag", "voice_note")


def _with_call_ids(parts: list[Any]) -> list[Any]:
    """Parts whose calls and results have ids: older exports leave them out."""
    made: list[Any] = []
    waiting: list[str] = []
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "tool_use":
            call_id = str(part.get("id") or f"call_{number}")
            waiting.append(call_id)
            part = {**part, "id": call_id}
        elif kind == "tool_result":
            call_id = str(part.get("tool_use_id") or (waiting[0] if waiting else f"call_{number}"))
            waiting = [one for one in waiting if one != call_id]
            part = {**part, "tool_use_id": call_id}
        made.append(part)
    return made


CLAUDE = DialectSpec("claude", "the export of claude.ai: chat_messages", _matches, _read, _COLUMNS)


def _is_event(row: Row) -> bool:
    if row.get("type") in ("summary", "file-history-snapshot", "queue-operation", "permission-mode"):
        return "leafUuid" in row or "snapshot" in row or "sessionId" in row
    return "sessionId" in row and ("uuid" in row or "parentUuid" in row)


def _join(rows: Iterable[tuple[Source, dict[str, Any]]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    """The conversations of a session file: the main one, those after a compaction, and those of subagents."""
    chats: dict[tuple[str, str], _Chat] = {}
    for source, row in rows:
        if row.get("type") not in ("user", "assistant") or not isinstance(row.get("message"), Mapping):
            continue
        session, agent = str(row.get("sessionId")), str(row.get("agentId") or row.get("isSidechain") or "")
        chat = chats.get((session, agent))
        starts = row.get("parentUuid") is None and row["type"] == "user" and not _is_result(row)
        if chat is None or (starts and chat.events):
            if chat is not None:
                yield chat.source, chat.row()
            chat = chats[session, agent] = _Chat(source, session, agent)
        chat.add(row)
    for chat in chats.values():
        yield chat.source, chat.row()


def _is_result(row: Mapping[str, Any]) -> bool:
    content = row["message"].get("content")
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )


class _Chat:
    """One conversation of a session."""

    def __init__(self, source: Source, session: str, agent: str):
        self.source, self.session, self.agent = source, session, agent
        self.events: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add an event. A prompt that answers to an earlier event takes back what came after that: a rewind."""
        parent = row.get("parentUuid")
        if row["type"] == "user" and not _is_result(row):
            for number, event in enumerate(self.events):
                if event.get("uuid") == parent:
                    del self.events[number + 1 :]
                    break
        self.events.append(row)

    def row(self) -> dict[str, Any]:
        """The canonical row."""
        messages: list[dict[str, Any]] = []
        before = None  # the id of the assistant's message before, which is written block by block
        metadata: dict[str, Any] = {}
        made: dict[str, Any] = {"id": f"{self.session}:{self.agent}" if self.agent else self.session}
        for event in self.events:
            message = event["message"]
            if event.get("isApiErrorMessage"):
                continue
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
            if any(isinstance(part, Mapping) and part.get("type") in ("image", "document") for part in parts):
                made[REFUSED] = "a message has images or documents: distill trains on text only"
            if event["type"] == "assistant":
                metadata["model"] = message.get("model")
                if message.get("stop_reason"):
                    metadata["finish_reason"] = message["stop_reason"]
            if event["type"] == "assistant" and before is not None and message.get("id") == before:
                messages[-1]["content"] += parts
            else:
                messages.append({"role": event["type"], "content": parts})
            before = message.get("id") if event["type"] == "assistant" else None
        return {**made, "messages": messages, "metadata": metadata}


def _single(row: Row, where: str) -> dict[str, Any]:
    raise RefusedRow(f"{where}: a single event of a session", "give the whole session file")


CLAUDE_CODE = DialectSpec(
    "claude-code",
    "session files of Claude Code: sessionId, message",
    lambda row: False,
    _single,
    (),
    is_part=_is_event,
    join=_join,
)
