"""Which data format a row is in."""

from __future__ import annotations

from distill.errors import DataError
from distill.transcripts.dialects.base import Dialect, Row
from distill.types import Source

_OTHER_SHAPES = {
    ("chosen", "rejected"): "preferences: keep the good answer only",
    ("preferred_output", "non_preferred_output"): "preferences: keep the good answer only",
    ("custom_id", "response"): "a batch's output: answers without their questions",
    ("custom_id", "body"): "a batch's input: questions without their answers",
    ("prompt",): "a prompt, whose answer `distill collect` gets",
    ("turns",): "a prompt, whose answers `distill collect` gets",
    ("text",): "plain text, not a conversation",
}


def detect(row: Row, source: Source, dialects: tuple[Dialect, ...]) -> Dialect:
    """The dialect of a row, by its keys.

    Raises:
        DataError: it has the keys of none, or of several; says what was found, and what to name.
    """
    found = [dialect for dialect in dialects if dialect.matches(row)]
    if len(found) == 1:
        return found[0]
    names = " and ".join(dialect.name for dialect in found)
    if found:
        raise DataError(f"{source}: the row has the keys of {names}", "say which, with --from NAME")
    keys = ", ".join(list(row)[:10]) + (", …" if len(row) > 10 else "") or "none"
    shape = next((text for keys, text in _OTHER_SHAPES.items() if set(keys) <= set(row)), None)
    looks = f"; it looks like {shape}" if shape else ""
    known = "; ".join(f"{dialect.name} ({dialect.summary})" for dialect in dialects)
    raise DataError(
        f"{source}: a row of no known format: its keys are {keys}{looks}", f"known are {known}; rename its keys"
    )
