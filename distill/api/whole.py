"""A whole recipe, and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill.api.arguments import noter, plugins_of
from distill.plugins import PluginManager
from distill.progress import PartProgress, StepProgress

if TYPE_CHECKING:
    from distill.diagnosis import Probe
    from distill.recipes import RecipeReport


def run(
    recipe: str | Path, *, dry_run: bool = False, progress: bool = True, manager: PluginManager | None = None
) -> RecipeReport:
    """Run a recipe: collect, check, train and compare, each step only if something has changed for it.

    Args:
        recipe: the YAML file.
        dry_run: check everything, and report what would run and why.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.
    """
    from distill.recipes import Watch, run_recipe

    with StepProgress(progress) as on_log, PartProgress(progress) as on_compare:
        watch = Watch(noter(progress), on_log, progress, on_compare if progress else None)
        return run_recipe(recipe, plugins_of(manager), dry_run=dry_run, watch=watch)


def quickstart(
    out: str | Path = "quickstart", *, progress: bool = True, manager: PluginManager | None = None
) -> RecipeReport:
    """Write the recipe that comes with distill, with its prompts, and run it: `distill quickstart`.

    Args:
        out: the folder to work in; files that are there already stay as they are.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.
    """
    from distill.recipes import write_quickstart

    return run(write_quickstart(Path(out)), progress=progress, manager=manager)


def doctor(*, self_test: bool = False, manager: PluginManager | None = None) -> list[Probe]:
    """Diagnose the environment: versions, devices, disk, keys, plugins. It contacts nothing.

    Args:
        self_test: also train a tiny random student for one step, on the CPU.
        manager: the plugins; default: those that are installed.
    """
    from distill.diagnosis import examine

    return list(examine(plugins_of(manager), self_test=self_test))
