"""Every hook of distill, with its contract. A plugin implements any of them with `@distill.hookimpl`.

Plugins are loaded one at a time: the built-in ones, then entry points of the group `distill` by name, then `--plugin
FILE.py`. Registration is all-or-nothing: if one component is invalid, the plugin is not loaded. Registration hooks do
no I/O and import nothing heavy; they return specs, and a component is built later, if the user names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from distill.specs import (
    DialectSpec,
    ExporterSpec,
    FormatterSpec,
    LabelerSpec,
    LossSpec,
    ModelSpec,
    TeacherSpec,
    TrainerSpec,
)
from distill.types import CollectRun, TrainResult, Transcript

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("distill")
hookimpl = pluggy.HookimplMarker("distill")


@hookspec
def register_teachers() -> Iterable[TeacherSpec]:
    """Offer teachers for `--teacher NAME[:MODEL]`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: before the plugin's other hooks.
    Returns: TeacherSpecs, in a list or any other iterable. `build` is called when the user names one: once
        per collection, with (options, MODEL or None), and the plugin manager where `loads_models`.
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_formatters() -> Iterable[FormatterSpec]:
    """Offer chat formats for `--formatter NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_teachers.
    Returns: FormatterSpecs, in a list or any other iterable. `build` is called when the user names one: once
        per command, with (options).
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_labelers() -> Iterable[LabelerSpec]:
    """Offer labelers for `--labeler NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_formatters.
    Returns: LabelerSpecs, in a list or any other iterable. `build` is called when the user names one: once
        per command, with (options, encoder).
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_trainers() -> Iterable[TrainerSpec]:
    """Offer trainers for `--trainer NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_labelers.
    Returns: TrainerSpecs, in a list or any other iterable. `build` is called when the user names one: once
        per training, with (options), before anything is read or loaded.
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_losses() -> Iterable[LossSpec]:
    """Offer losses for `--loss NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_trainers.
    Returns: LossSpecs, in a list or any other iterable. `build` is called when the user names one: once per
        training, with (options), before anything is read or loaded.
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_exporters() -> Iterable[ExporterSpec]:
    """Offer exporters for `distill export RUN --to NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_losses.
    Returns: ExporterSpecs, in a list or any other iterable. `build` is called when the user names one: once per export,
        with (options).
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_models() -> Iterable[ModelSpec]:
    """Offer local models by name, for `--student NAME`, `--teacher NAME` and `generate NAME`. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_exporters.
    Returns: ModelSpecs, in a list or any other iterable. `path` is called when the user names one.
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_dialects() -> Iterable[DialectSpec]:
    """Offer data formats for `--from NAME`, `--to NAME` and detection. Called once, at start.

    When: when the plugin is loaded, before the command line is read.
    How often: once per plugin and command.
    Order: after the plugin's register_models.
    Returns: DialectSpecs, in a list or any other iterable. `matches` is called for each row whose format the user does
        not name, `read` for each row of the format, in any process; `write` for each row of a conversion to it.
    Errors: an exception, a wrong return value or a name that is taken keeps the plugin from being loaded.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line with `cli.add_command(…)`. Called once, at start; a name in use is refused.

    When: when all plugins are loaded, before the command line is read.
    How often: once per plugin and command line.
    Order: plugin by plugin, as they were loaded.
    Returns: nothing. A command finds the plugin manager with `@click.pass_obj`; a DistillError it raises is printed as
        `Error: …` and `Hint: …`.
    Errors: an exception, or the name of another command, unloads the plugin and all it registered.
    """


@hookspec
def transcript_collected(transcript: Transcript, run: CollectRun) -> None:
    """Observe a collection: called after each transcript is on disk, in the order they are written.

    When: in `distill collect`, when the row is in the file; rows from an earlier run are not reported again.
    How often: once per transcript.
    Order: pluggy's: the plugin loaded last comes first, except for `tryfirst` and `trylast`.
    Returns: nothing. The collection waits for it: keep it short.
    Errors: an exception changes nothing; it is logged with the plugin's name, the first time as a warning.
    """


@hookspec
def training_finished(run: Path, result: TrainResult) -> None:
    """Observe a training: called once, when the run folder `run` is complete.

    When: at the end of `distill train`; not after `--dry-run`, and not for a training that failed.
    How often: once per training.
    Order: pluggy's: the plugin loaded last comes first, except for `tryfirst` and `trylast`.
    Returns: nothing.
    Errors: an exception changes nothing; it is logged with the plugin's name, the first time as a warning.
    """
