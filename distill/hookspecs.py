"""Every hook of distill, with its contract. A plugin implements any of them with `@distill.hookimpl`.

Plugins are loaded one by one: the built-in ones, then entry points of the group `distill` by name, then `--plugin
FILE.py`. What a plugin registers is taken as a whole or, when any of it is wrong, not at all. Registration hooks do no
I/O and import nothing heavy: they return what is built later, if the user names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from distill.specs import FormatterSpec, LabelerSpec, LossSpec, ModelSpec, TeacherSpec, TrainerSpec
from distill.types import CollectRun, TrainResult, Transcript

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("distill")
hookimpl = pluggy.HookimplMarker("distill")


@hookspec
def register_teachers() -> Iterable[TeacherSpec]:
    """Offer teachers for `--teacher NAME[:MODEL]`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: before the plugin's other hooks.
    Returns: TeacherSpecs, in a list or any other iterable. `build` is called when the user names one: once a
        collection, with (options, MODEL or None), and the plugin manager where `loads_models`.
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_formatters() -> Iterable[FormatterSpec]:
    """Offer chat formats for `--formatter NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: after the plugin's register_teachers.
    Returns: FormatterSpecs, in a list or any other iterable. `build` is called when the user names one: once a
        command, with (options).
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_labelers() -> Iterable[LabelerSpec]:
    """Offer labelers for `--labeler NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: after the plugin's register_formatters.
    Returns: LabelerSpecs, in a list or any other iterable. `build` is called when the user names one: once a
        command, with (options, encoder).
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_trainers() -> Iterable[TrainerSpec]:
    """Offer trainers for `--trainer NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: after the plugin's register_labelers.
    Returns: TrainerSpecs, in a list or any other iterable. `build` is called when the user names one: once a
        training, with (options), before anything is read or loaded.
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_losses() -> Iterable[LossSpec]:
    """Offer losses for `--loss NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: after the plugin's register_trainers.
    Returns: LossSpecs, in a list or any other iterable. `build` is called when the user names one: once a
        training, with (options), before anything is read or loaded.
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_models() -> Iterable[ModelSpec]:
    """Offer local models by name, for `--student NAME`, `--teacher NAME` and `generate NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once a plugin and command.
    Order: after the plugin's register_losses.
    Returns: ModelSpecs, in a list or any other iterable. `path` is called when the user names one.
    Errors: what it raises, anything else it returns, and a name that is taken keep the plugin from being loaded.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line with `cli.add_command(…)`. Called once, at start; a name in use is refused.

    When: when all plugins are loaded, before the command line is read.
    How often: once a plugin and command line.
    Order: plugin by plugin, as they were loaded.
    Returns: nothing. A command finds the plugin manager with `@click.pass_obj`; a DistillError it raises is printed as
        `Error: …` and `Hint: …`.
    Errors: what it raises, and the name of another command, take back everything the plugin has registered.
    """


@hookspec
def transcript_collected(transcript: Transcript, run: CollectRun) -> None:
    """Watch a collection: called after each transcript is on disk, in the order they are written.

    When: in `distill collect`, when the row is in the file; rows that were there before are not told again.
    How often: once a transcript.
    Order: plugins as pluggy calls them: the one loaded last first, but for `tryfirst` and `trylast`.
    Returns: nothing. The collection waits for it: keep it short.
    Errors: what it raises changes nothing; it is logged with the plugin's name, as a warning the first time.
    """


@hookspec
def training_finished(run: Path, result: TrainResult) -> None:
    """Watch a training: called once, when the run folder `run` is complete.

    When: at the end of `distill train`; not after `--dry-run`, and not for a training that failed.
    How often: once a training.
    Order: plugins as pluggy calls them: the one loaded last first, but for `tryfirst` and `trylast`.
    Returns: nothing.
    Errors: what it raises changes nothing; it is logged with the plugin's name, as a warning the first time.
    """
