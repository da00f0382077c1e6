"""The chat format that a model was trained in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def saved_format(model: str) -> tuple[str, Mapping[str, Any]]:
    """The format to ask a model in: the template saved with it, or the plugin's it was trained with where it has none.

    Args:
        model: what the user named; a run folder knows its format.

    Returns:
        The formatter's name and its options.
    """
    manifest = Path(model) / "run.json"
    if not manifest.is_file() or (Path(model) / "model" / "chat_template.jinja").is_file():
        return "chat-template", {}
    settings = json.loads(manifest.read_text(encoding="utf-8"))["settings"]
    return settings["formatter"]["value"], settings["formatter_options"]["value"]
