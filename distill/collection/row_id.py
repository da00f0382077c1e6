"""A row's id: a hash of all that the answer depends on. Rows with equal ids are never asked for twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from distill.transcripts.rows import message_to_dict
from distill.types import Params, Prompt

PARAMS_MARK = "params"
"""The key of a dataclass field's `metadata` by which a teacher's option says: I change the answers."""


def all_params(params: Params, options: Any) -> dict[str, Any]:
    """What the answers depend on besides the messages, as `metadata.params` keeps it.

    Args:
        params: the common parameters; those that are None are left out.
        options: the teacher's options object; fields declared with `field(metadata={"params": True})` are added
            where they differ from their default.
    """
    found = {name: value for name, value in dataclasses.asdict(params).items() if value is not None}
    if "temperature" in found:
        found["temperature"] = float(found["temperature"])  # 0 and 0.0 are one temperature
    if dataclasses.is_dataclass(options):
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            if field.metadata.get(PARAMS_MARK) and value != _default(field):
                found[field.name] = value
    return found


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def row_id(teacher: str, params: Mapping[str, Any], prompt: Prompt, sample: int) -> str:
    """Hash what a row's answer depends on, as 32 hexadecimal characters.

    Args:
        teacher: the teacher's name and model, e.g. `openai:gpt-5-mini`.
        params: as `all_params` gives them.
        prompt: its messages, followups and tools count; its own id, metadata and source do not.
        sample: which of several answers to the same prompt.
    """
    key = {
        "teacher": teacher,
        "params": params,
        "messages": [message_to_dict(message) for message in prompt.messages],
        "followups": [message_to_dict(message) for message in prompt.followups],
        "tools": list(prompt.tools),
        "sample": sample,
    }
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class IdSet:
    """A set of ids in 15 bytes an id, where Python's own takes 150: a million rows fit into 15 MB.

    It is one block of memory, so that it leaves no holes as it grows. It keeps 80 bits of each id's hash: that two of
    a million ids share them happens once in 10^12 runs.

    Args:
        room: for so many ids it need not grow.
    """

    _BYTES = 10
    _EMPTY = bytes(_BYTES)

    def __init__(self, room: int = 0):
        self._clear(room)

    def __contains__(self, id: str) -> bool:
        if not self._count:
            return False
        key = self._key(id)
        return self._at(self._slot(key)) == key

    def __len__(self) -> int:
        return self._count

    def add(self, id: str) -> bool:
        """Add an id; tells whether it is new."""
        return self._insert(self._key(id))

    def _insert(self, key: bytes) -> bool:
        if self._count * 4 >= self._slots * 3:
            self._grow()
        slot = self._slot(key)
        if self._at(slot) == key:
            return False
        self._table[slot * self._BYTES : (slot + 1) * self._BYTES] = key
        self._count += 1
        return True

    def _clear(self, room: int) -> None:
        self._slots = max(16, room * 3 // 2)
        self._table = bytearray(self._slots * self._BYTES)
        self._count = 0

    def _grow(self) -> None:
        old = [key for slot in range(self._slots) if (key := self._at(slot)) != self._EMPTY]
        self._clear(2 * len(old))
        for key in old:
            self._insert(key)

    def _key(self, id: str) -> bytes:
        return hashlib.blake2b(id.encode(), digest_size=self._BYTES).digest()

    def _slot(self, key: bytes) -> int:
        """Where a key is, or belongs: its own place, or the next free one behind it."""
        slot = int.from_bytes(key, "big") % self._slots
        while self._at(slot) not in (key, self._EMPTY):
            slot = (slot + 1) % self._slots
        return slot

    def _at(self, slot: int) -> bytes:
        return bytes(self._table[slot * self._BYTES : (slot + 1) * self._BYTES])
