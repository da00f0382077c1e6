"""The columns of a row: those its data format understands, those that change what the row means, and the rest.

A column that means something else (a preference, a bad rating, images) is never ignored: the row is refused. A column
that nobody here knows is kept in the row's metadata, and reported once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from distill.errors import RefusedRow

_PREFERENCES = (
    *("chosen", "rejected", "preferred_output", "non_preferred_output", "kto_tag", "kto_label"),
    *("chosen_response", "rejected_response", "response_rejected"),
)
_MEDIA = (
    *("image", "images", "image_url", "image_urls", "audio", "audios", "video", "videos", "pixel_values"),
    *("image_path", "image_paths", "audio_path", "audio_url", "video_path", "video_url"),
)
_WEIGHTS = ("weight", "train", "loss_weight", "sample_weight", "weights", "loss_weights", "loss_mask", "train_mask")
_RATINGS = (
    *("rating", "score", "reward", "feedback", "thumbs", "vote", "thumbs_up", "is_good", "desirable", "accepted"),
    *("correct", "is_correct", "passed", "approved"),
)
_FLAGS = ("flagged", "toxic", "is_toxic", "deleted", "is_deleted", "truncated", "is_truncated")
_SYSTEMS = ("system_prompt", "system_message")
_BAD = {
    "false",
    "bad",
    "down",
    "thumbs_down",
    "thumbsdown",
    "negative",
    "dislike",
    "disliked",
    "rejected",
    "undesirable",
}
_LABELS = {"true", "good", "up", "positive", "chosen", "desirable", "accepted", "0", "1", "0.0", "1.0", *_BAD}


def other_columns(
    row: Mapping[str, Any], known: Collection[str], where: str, ignored: Collection[str]
) -> dict[str, Any]:
    """The columns of a row that its data format does not understand.

    Args:
        row: without null columns.
        known: the columns that the format understands.
        where: the row's `file:line`.
        ignored: columns that the user says mean nothing here.

    Raises:
        RefusedRow: a column means that the row is not a conversation to learn from; names it.
    """
    others = {key: value for key, value in row.items() if key not in known}
    for key, value in others.items():
        if key not in ignored and (reason := _meaning(key, value)):
            hint = f"leave such rows out, or drop the column; --ignore-column {key} if it means something else"
            raise RefusedRow(f"{where}: {reason}", hint)
    return others


def _meaning(key: str, value: Any) -> str | None:
    """Why a column changes what its row is; None where it does not."""
    name = key.lower()
    if name in _PREFERENCES:
        return f"a row of preferences (it has `{key}`), not one of answers to learn"
    if name in _MEDIA and value:
        return f"the row has `{key}`: distill trains on text only"
    if name == "label" and _is_verdict(value):
        return f"`{key}` is {_shown(value)}: a rating, not a conversation to train"
    if name in _RATINGS and _is_bad(value):
        return f"`{key}` is {_shown(value)}: a bad rating, not a conversation to train"
    if name in _FLAGS and value in (1, True, "true", "True"):
        return f"`{key}` is {_shown(value)}: not a conversation to train"
    if name in _SYSTEMS and value:
        return f"the row has `{key}`, which no data format here reads: rename it `system` to train with it"
    if name in _WEIGHTS and value not in (1, True, "1", "1.0"):
        return f"`{key}` is {_shown(value)}: rows have no weights here, only messages (`weight: 0`)"
    return None


def _is_verdict(value: Any) -> bool:
    """Whether a label says that an answer is good or bad, as KTO's does."""
    if isinstance(value, str):
        return value.strip().lower() in _LABELS
    return isinstance(value, (bool, int, float)) and value in (0, 1)


def _is_bad(value: Any) -> bool:
    """Whether a rating is below the line: false, zero, negative, or a word for it."""
    if isinstance(value, str):
        return value.strip().lower() in _BAD
    return isinstance(value, (bool, int, float)) and value <= 0


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def merged_metadata(row: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """A row's metadata with its other columns; where both have a name, the metadata's value stays."""
    own = row.get("metadata")
    own = own if isinstance(own, dict) else {"metadata": own} if own else {}
    return {**others, **own}


def hidden_columns(row: Mapping[str, Any], others: Mapping[str, Any]) -> set[str]:
    """The other columns for which the metadata has another value of the same name, so that they are lost."""
    own = row.get("metadata")
    return {key for key, value in others.items() if isinstance(own, dict) and key in own and own[key] != value}
