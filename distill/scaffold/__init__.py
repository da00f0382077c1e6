"""A new plugin package, made from a template that works: what it prints, tests and installs is true from the start.

The templates are the files beside this one, of a plugin called `my-plugin`; making a package is renaming it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from distill.errors import DistillError, UsageError, unknown_name
from distill.files.atomic import whole_folder
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from importlib.abc import Traversable

Kind = Literal["dialect", "exporter", "formatter", "labeler", "loss", "teacher", "trainer"]

KINDS: tuple[str, ...] = get_args(Kind)

LONGEST = 25  # characters of a name; with more, the lines of the templates grow too long

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_plugin(name: str, kind: Kind, parent: str | Path = ".", manager: PluginManager | None = None) -> Path:
    """Write a package `distill-NAME` that can be installed as it is: module, tests, README, pyproject.toml.

    Args:
        name: what users will write, `--formatter NAME`: lower-case letters, digits and single hyphens.
        kind: what it offers.
        parent: the folder to make the package's folder in.
        manager: plugins whose names are taken; default: none are.

    Returns:
        The folder, which appears whole or not at all.

    Raises:
        UsageError: the name cannot be a package's, a module's and a plugin's, or it is taken.
        DistillError: the folder exists, or cannot be written.
    """
    name = name.removeprefix("distill-")
    if kind not in KINDS:
        raise unknown_name("kind of plugin", kind, KINDS)
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        hint = f"take lower-case letters, digits and single hyphens, a letter first, {LONGEST} at most"
        raise UsageError(f"{name!r} cannot be the name of a plugin", hint)
    if manager is not None:
        _check_free(name, kind, manager)
    target = Path(parent) / f"distill-{name}"
    if target.exists() or target.is_symlink():
        raise DistillError(f"{target} exists already", "take another name, or remove it")
    try:
        with whole_folder(target) as folder:
            for path, text in _files(name, kind):
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DistillError(f"{target} cannot be written: {error.strerror}") from error
    return target


def _check_free(name: str, kind: str, manager: PluginManager) -> None:
    """A plugin whose name is taken would not be loaded."""
    if name in manager.registries[kind]:
        raise UsageError(f"{kind} {name!r} is registered by {manager.registries[kind].owner(name).owner} already")
    for record in manager.records:
        if record.name == name:
            raise UsageError(f"there is a {record.owner} already")


def _files(name: str, kind: str) -> Iterator[tuple[Path, str]]:
    """The package's files: where, and what is in them."""
    here = resources.files(__package__)
    spellings = {
        "my-plugin": name,
        "my_plugin": name.replace("-", "_"),
        "MyPlugin": "".join(word.capitalize() for word in name.split("-")),
        "KIND": kind,
    }
    for template in (*_templates(here / "common"), *_templates(here / kind)):
        text, file = template.read_text(encoding="utf-8"), template.name.removesuffix("-tpl")
        for placeholder, word in spellings.items():
            text, file = text.replace(placeholder, word), file.replace(placeholder, word)
        yield Path("tests" if file.startswith("test_") else "", file), text


def _templates(folder: Traversable) -> list[Traversable]:
    return [file for file in folder.iterdir() if file.name.endswith("-tpl")]
