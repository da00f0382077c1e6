"""A data format for distill: OpenAssistant's message trees, of which the best-ranked conversation is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import distill

_ROLES = {"prompter": "user", "assistant": "assistant"}


def matches(row: Mapping[str, Any]) -> bool:
    """Whether a row is a tree."""
    return "message_tree_id" in row and isinstance(row.get("prompt"), dict)


def read(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the conversation that OpenAssistant's reviewers ranked best, reply by reply."""
    messages = []
    for node in best_path(row["prompt"]):
        if node.get("role") not in _ROLES or not isinstance(node.get("text"), str):
            raise distill.DataError(f"{where}: a message is not {{'role', 'text'}}")
        messages.append({"role": _ROLES[node["role"]], "content": node["text"]})
    if messages[-1]["role"] == "user":
        messages.pop()  # nobody answered it
    if not messages:
        raise distill.RefusedRow(f"{where}: nobody answered the prompt", "leave such rows out")
    return {"id": row["message_tree_id"], "messages": messages, "metadata": {"lang": row["prompt"].get("lang")}}


def best_path(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The messages from the root to a leaf, at each step the reply of the best rank that was not deleted."""
    while True:
        yield node
        replies = [reply for reply in node.get("replies") or [] if not reply.get("deleted")]
        if not replies:
            return
        node = min(replies, key=lambda reply: float("inf") if reply.get("rank") is None else reply["rank"])


def write(transcript: distill.Transcript) -> dict[str, Any]:
    """Write a conversation as a tree without branches."""
    names = {role: name for name, role in _ROLES.items()}
    node: dict[str, Any] | None = None
    for message in reversed(transcript.messages):
        if message.role not in names or message.content is None or message.tool_calls:
            raise distill.DataError("OpenAssistant has only texts of user and assistant")
        replies = [] if node is None else [node]
        node = {"role": names[message.role], "text": message.content, "rank": 0, "replies": replies}
    return {"message_tree_id": transcript.id, "tree_state": "ready_for_export", "prompt": node}


@distill.hookimpl
def register_dialects() -> list[distill.DialectSpec]:
    """Offer `--from oasst` and `--to oasst`."""
    columns = ("message_tree_id", "tree_state", "prompt", "origin")
    return [distill.DialectSpec("oasst", "OpenAssistant's trees: prompt, replies", matches, read, columns, write)]
