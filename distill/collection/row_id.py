"""The id of a row: a hash of everything that its answer depends on. Rows with equal ids are asked once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distill.transcripts.rows import message_to_dict
from distill.types import Params, Prompt

PARAMS_MARK = "params"
"""The key of a dataclass field's `metadata` that marks a teacher's option as one that changes the answers."""


def all_params(params: Params, options: Any) -> dict[str, Any]:
    """What the answers depend on besides the messages, as `metadata.params` keeps it.

    Args:
        params: the common parameters; those that are None are left out.
        options: the teacher's options object; fields declared with `field(metadata={"params": True})` are added
            where they differ from their default.
    """
    found = {name: value for name, value in dataclasses.asdict(params).items() if value is not None}
    found |= found.pop("extra")
    if "temperature" in found:
        found["temperature"] = float(found["temperature"])  # 0 and 0.0 are one temperature
    if dataclasses.is_dataclass(options):
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            if field.metadata.get(PARAMS_MARK) and value != _default(field):
                found[field.name] = value
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def row_id(teacher: str, params: Mapping[str, Any], prompt: Prompt, sample: int) -> str:
    """Hash what a row's answer depends on, as 32 hexadecimal characters.

    Args:
        teacher: the teacher's name and model, e.g. `openai:gpt-5-mini`.
        params: as `all_params` gives them.
        prompt: its messages, followups, tools and what only the teacher sees count; its own id, metadata and source
            do not.
        sample: which of several answers to the same prompt.
    """
    key: dict[str, Any] = {
        "teacher": teacher,
        "params": params,
        "messages": [message_to_dict(message) for message in prompt.messages],
        "followups": [message_to_dict(message) for message in prompt.followups],
        "tools": list(prompt.tools),
        "sample": sample,
    }
    if prompt.teacher_messages:
        key["teacher_messages"] = [message_to_dict(message) for message in prompt.teacher_messages]
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class IdSet:
    """A set of ids that keeps 10 bytes of each one's hash: about 80 MB per million ids, where the ids take 127.

    That two of a million ids share their 80 bits happens once in 10^12 runs.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def __contains__(self, id: str) -> bool:
        return _digest(id) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, id: str) -> bool:
        """Add an id; tells whether it is new."""
        before = len(self._digests)
        self._digests.add(_digest(id))
        return len(self._digests) > before


def _digest(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=10).digest()
