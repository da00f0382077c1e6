"""Chats as files of transcripts."""

from __future__ import annotations

import json
from pathlib import Path


def write_chats(path: Path, chats) -> Path:
    """Chats, as lists of (role, text), to a file of transcripts."""
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
