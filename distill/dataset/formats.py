"""Choosing a chat format and a labeler by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.encode.encoder import Encoder
from distill.plugins import PluginManager, make_plugin_manager
from distill.protocols import Formatter, Labeler
from distill.specs import make_options


def make_formatter(
    name: str, options: Mapping[str, Any] | None = None, manager: PluginManager | None = None
) -> Formatter:
    """Build the formatter of that name.

    Args:
        name: a registered formatter's.
        options: its options.
        manager: where it is registered; default: a fresh one.

    Raises:
        UsageError: no such formatter, or options it does not take.
    """
    spec = (manager or make_plugin_manager()).formatters.get(name)
    return spec.build(make_options(spec, options or {}, "formatter"))


def make_labeler(name: str, options: Mapping[str, Any], manager: PluginManager, encoder: Encoder) -> Labeler:
    """Build the labeler of that name for an encoder.

    Raises:
        UsageError: no such labeler, or options it does not take.
    """
    spec = manager.labelers.get(name)
    return spec.build(make_options(spec, options, "labeler"), encoder)
