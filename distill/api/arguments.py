"""From a function's arguments to settings, plugins and notes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from distill.files.text import printable
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import QUIET
from distill.settings import options_of, settings_from

S = TypeVar("S")


def plugins_of(manager: PluginManager | None) -> PluginManager:
    """The plugins that were given, or those that are installed."""
    return make_plugin_manager() if manager is None else manager


def settings_of(settings: type[S], arguments: Mapping[str, Any], **others: Any) -> S:
    """Make a settings object of a function's arguments."""
    return settings_from(settings, given(settings, arguments), **others)


def given(settings: type[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are options, and not at their defaults."""
    words = {option.name: option for option in options_of(settings)}
    return {
        name: value
        for name, value in arguments.items()
        if name in words and value is not None and value is not False and value != words[name].usual
    }


def noter(shown: bool) -> Callable[[str], None]:
    """Writes a line to standard error, above a bar that is there."""

    def note(text: str) -> None:
        from tqdm.auto import tqdm

        if shown and not QUIET.get():
            tqdm.write(printable(text), file=sys.stderr)

    return note
