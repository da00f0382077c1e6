"""References to models: a folder, a `.gguf` file, a hub id, a run folder, or a name that a plugin registered."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from distill.errors import UsageError
from distill.files.nearby import did_you_mean, nearby
from distill.runs.layout import is_run
from distill.runs.run import open_run

if TYPE_CHECKING:
    from distill.plugins import PluginManager


class ModelRef(str):
    """A model as the loaders take it, a path or a hub id, and whether code that comes with it may run.

    Any other string is a model whose code may not run.

    Attributes:
        trust_remote_code: whether Python files of the model (`auto_map` in its config) may be imported.
    """

    trust_remote_code: bool

    def __new__(cls, location: str, trust_remote_code: bool = False) -> ModelRef:
        """Make a reference."""
        ref = super().__new__(cls, location)
        ref.trust_remote_code = trust_remote_code
        return ref


def trusts_remote_code(ref: str) -> bool:
    """Whether a model's own code may run: only where the user asked for it."""
    return isinstance(ref, ModelRef) and ref.trust_remote_code


def cache_dir() -> Path:
    """distill's cache folder: `$DISTILL_CACHE`, or the platform's usual place (`~/.cache/distill` on Linux).

    Earlier releases used `~/.cache/distill` on every platform; where that folder exists, it stays in use.
    """
    if "DISTILL_CACHE" in os.environ:
        return Path(os.environ["DISTILL_CACHE"])
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill"
    return earlier if earlier.is_dir() else platformdirs.user_cache_path("distill")


def resolve_model(name: str, manager: PluginManager, trust_remote_code: bool = False) -> ModelRef:
    """Turn what the user named into what `load_tokenizer` and `load_model` take.

    Args:
        name: a registered model's name, a run folder (its student is meant), a model folder, a `.gguf` file or a
            hub id.
        manager: knows the registered models.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        UsageError: a path that does not exist, or a folder or file that holds no model.
    """
    return ModelRef(_location(name, manager), trust_remote_code)


def _location(name: str, manager: PluginManager) -> str:
    path = Path(name).expanduser()
    if is_run(path):
        return str(open_run(path).model_dir)
    if path.is_dir():
        if (path / "model_index.json").is_file():
            raise UsageError(
                f"{name!r} is a diffusers pipeline, not a language model", "give a language model's folder"
            )
        if not (path / "config.json").is_file():
            raise UsageError(f"{name!r} holds no model (no config.json)", "give a folder that `save_pretrained` wrote")
        return str(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(
                f"{name!r} is not a model", "give a model folder, a .gguf file, a hub id or a model's name"
            )
        return str(path)
    if name in manager.models:
        return str(manager.models.get(name).path())
    if name.startswith((".", "/", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        near = did_you_mean(path, _is_model)
        raise UsageError(f"no model at {name!r}: no such file or folder", near or _known(manager))
    if "/" not in name:
        _refuse_misspelt(name, manager)
    return name


def _is_model(path: Path) -> bool:
    return is_run(path) or path.suffix == ".gguf" or (path / "config.json").is_file()


def _refuse_misspelt(name: str, manager: PluginManager) -> None:
    """Refuse a name that is like a registered model's or a run's here, before the hub is asked for it.

    Raises:
        UsageError: there is such a name, and no model of the hub has been loaded under this one.
    """
    near = next(iter(difflib.get_close_matches(name, manager.models.names(), n=1, cutoff=0.6)), None)
    near = near or nearby(name, _is_model)
    if near is None:
        return
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise UsageError(f"no model {name!r} here", f"did you mean {near!r}? A model of the hub is written OWNER/NAME")


def _known(manager: PluginManager) -> str:
    names = ", ".join(manager.models.names())
    return "give a model folder, a .gguf file or a hub id" + (f", or one of: {names}" if names else "")
