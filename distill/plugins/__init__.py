"""Finding, loading and isolating plugins.

Plugins are loaded one at a time. Whatever goes wrong with one is recorded, shown by `distill plugins`, and stops only a
command that names the plugin. A fresh manager is made for each run: there is no global state.
"""

from distill.plugins.discovery import BUILTIN, make_formatter, make_plugin_manager
from distill.plugins.manager import PluginManager
from distill.plugins.registry import KINDS, Kind, PluginRecord, Registry

__all__ = [
    "BUILTIN",
    "KINDS",
    "Kind",
    "PluginManager",
    "PluginRecord",
    "Registry",
    "make_formatter",
    "make_plugin_manager",
]
