"""Every hook of distill, with its contract. A plugin implements any of them with `@distill.hookimpl`.

Registration hooks are called once when the command starts, plugin by plugin: the built-in ones, then entry points
of the group `distill` by name, then `--plugin FILE.py`. They must import nothing heavy and do no I/O. What they
return is taken as a whole or, when any of it is wrong, not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from distill.specs import FormatterSpec, LabelerSpec, ModelSpec, TeacherSpec, TrainerSpec
from distill.types import CollectRun, TrainResult, Transcript

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("distill")
hookimpl = pluggy.HookimplMarker("distill")


@hookspec
def register_teachers() -> Iterable[TeacherSpec]:
    """Offer teachers for `--teacher NAME[:MODEL]`. Called once, at start."""


@hookspec
def register_formatters() -> Iterable[FormatterSpec]:
    """Offer chat formats for `--formatter NAME`. Called once, at start."""


@hookspec
def register_labelers() -> Iterable[LabelerSpec]:
    """Offer labelers for `--labeler NAME`. Called once, at start."""


@hookspec
def register_trainers() -> Iterable[TrainerSpec]:
    """Offer trainers for `--trainer NAME`. Called once, at start."""


@hookspec
def register_models() -> Iterable[ModelSpec]:
    """Offer local models by name, for `--student NAME`, `--teacher NAME` and `generate NAME`. Called once, at start."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the command line with `cli.add_command(…)`. Called once, at start; a name in use is refused."""


@hookspec
def transcript_collected(transcript: Transcript, run: CollectRun) -> None:
    """Watch a collection: called after each transcript is on disk, in the order they are written.

    What it raises is logged with the plugin's name and changes nothing.
    """


@hookspec
def training_finished(run: Path, result: TrainResult) -> None:
    """Watch a training: called once, when the run folder `run` is complete.

    What it raises is logged with the plugin's name and changes nothing.
    """
