"""A trained student, out of its run folder, in the shape that others load."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill.errors import UsageError
from distill.files import whole_folder
from distill.models import resolve_model
from distill.plugins import PluginManager


def export_merged(run: str, out: Path, manager: PluginManager) -> list[Path]:
    """Copy a student's safetensors, tokenizer and chat template; adapters are merged into the weights already.

    Args:
        run: a run folder whose training is finished.
        out: the folder to make, whole or not at all.
        manager: the plugins.

    Returns:
        The files made.

    Raises:
        UsageError: `run` is no finished run, or `out` exists.
    """
    if not (Path(run) / "run.json").is_file():
        raise UsageError(f"{run!r} is not a run folder", "give the folder that `distill train --out` made")
    model = Path(resolve_model(run, manager))
    if out.exists():
        raise UsageError(f"{out} exists; it was left as it is", "choose another --out, or remove it")
    with whole_folder(out) as made:
        shutil.copytree(model, made, dirs_exist_ok=True)
    return sorted(path for path in out.rglob("*") if path.is_file())
