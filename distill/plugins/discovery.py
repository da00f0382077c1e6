"""Finding plugins: the built-in ones, installed packages, files."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from distill.errors import PluginError, one_line
from distill.plugins.manager import GROUP, PluginManager
from distill.plugins.registry import PluginRecord
from distill.protocols import Formatter

BUILTIN = (
    "distill.builtin.teachers",
    "distill.builtin.formatters",
    "distill.builtin.labelers",
    "distill.builtin.trainers",
    "distill.builtin.dialects",
    "distill.builtin.losses",
    "distill.builtin.exporters",
    "distill.builtin.smollm2",
)
REPLACEABLE = {"smollm2"}
"""Built-in plugins that were packages once: an installed package of that name replaces them."""

log = logging.getLogger("distill")


def make_plugin_manager(files: Sequence[str | Path] = (), environ: Mapping[str, str] | None = None) -> PluginManager:
    """Find and load all plugins: built-ins, then entry points by name, then files.

    Args:
        files: Python files to load as plugins (`--plugin`).
        environ: where `DISTILL_PLUGINS` (only these entry points) and `DISTILL_DISABLE` (not these) are read, each a
            comma-separated list of names; default `os.environ`.

    Returns:
        The manager; plugins that failed are in its `records`, nothing is raised for them.
    """
    environ = os.environ if environ is None else environ
    manager = PluginManager()
    entry_points = _entry_points(environ)
    for name in BUILTIN:
        record = PluginRecord(name.rpartition(".")[2], "builtin")
        if record.name in REPLACEABLE and any(entry.name == record.name for entry, *_ in entry_points):
            continue
        manager.load(record, partial(importlib.import_module, name))
        if record.error:
            raise PluginError(f"built-in plugin {name} failed: {record.error}")
    for entry, distribution, version in entry_points:
        manager.load(PluginRecord(entry.name, "entry point", distribution, version), entry.load)
    for file in files:
        manager.load(PluginRecord(str(file), "file"), partial(_import_file, Path(file)))
    return manager


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
        PluginError: the plugin failed, or built something else.
    """
    return (manager or make_plugin_manager()).formatters.build(name, options)


def _names(environ: Mapping[str, str], key: str) -> set[str] | None:
    if key not in environ:
        return None
    return {name.strip() for name in environ[key].split(",") if name.strip()}


def _entry_points(
    environ: Mapping[str, str],
) -> list[tuple[importlib.metadata.EntryPoint, str | None, str | None]]:
    """The entry points to load, by name, each with its distribution's name and version."""
    only, without = _names(environ, "DISTILL_PLUGINS"), _names(environ, "DISTILL_DISABLE") or set()
    found: dict[tuple[str, str], tuple[importlib.metadata.EntryPoint, str | None, str | None]] = {}
    # Not `entry_points(group=…)`: it raises for all when the metadata of one package is damaged.
    for distribution in importlib.metadata.distributions():
        try:
            entries = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            log.debug("entry points that cannot be read: %s", one_line(error))
            continue
        for entry in entries:
            name, version = _identity(distribution)
            found.setdefault((entry.name, name or ""), (entry, name, version))  # the first on sys.path counts
    for name in sorted(((only or set()) | without) - {name for name, _ in found}):
        log.warning("DISTILL_PLUGINS or DISTILL_DISABLE names the plugin %r, which is not installed", name)
    return [found[key] for key in sorted(found) if (only is None or key[0] in only) and key[0] not in without]


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str | None, str | None]:
    """A distribution's name and version; None where its METADATA is damaged or gone."""
    try:
        return distribution.metadata["Name"], distribution.version
    except Exception:
        return None, None


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"distill_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
