"""Where a run comes from: installed packages, the state of the repository, and the base model's origin."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

from distill.plugins import PluginManager
from distill.runs.manifest import BaseModel, GitState

_TIMEOUT = 10
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def requirements() -> tuple[str, ...]:
    """Every installed package as `name==version`, sorted; what `pip install -r` takes."""
    found = {(one.name, one.version) for one in metadata.distributions() if one.name}
    return tuple(sorted((f"{name}=={version}" for name, version in found), key=str.lower))


def git_state(folder: Path | None = None) -> GitState | None:
    """The commit that a folder is at, and whether tracked files have changed; None where there is no repository.

    Args:
        folder: default: the working folder.
    """
    commit = _git("rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    return GitState(commit, bool(_git("status", "--porcelain", "--untracked-files=no", folder=folder)))


def base_model(name: str, sha256: str | None, manager: PluginManager) -> BaseModel:
    """The model that a student is trained from, with its Hub id and licence as far as they are known.

    Args:
        name: as the user wrote it.
        sha256: of its weights; None for a model of the Hub.
        manager: knows the models that plugins offer by name.
    """
    if name in manager.models:
        spec = manager.models.get(name)
        return BaseModel(name, sha256, spec.hub_id, spec.license)
    return BaseModel(name, sha256, name if sha256 is None and _HUB_ID.fullmatch(name) else None)


def _git(*words: str, folder: Path | None) -> str:
    try:
        command = ["git", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.strip()
