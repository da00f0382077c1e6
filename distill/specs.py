"""What registration hooks return: a name, a one-line summary, the options and how to build it. Nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.options import NoOptions
from distill.protocols import BatchTeacher, Formatter, Labeler, Loss, Teacher, Trainer


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher the user may name: `--teacher NAME[:MODEL]`.

    Attributes:
        name: what the user writes.
        summary: one line for `distill plugins`.
        build: called once per collection with (options, MODEL or None), and the plugin manager where `loads_models`.
        options: a dataclass; its fields are the keys of `-T key=value`.
        loads_models: the teacher runs a model in this process. MODEL may then be the name of a registered model, and
            arrives as that model's path; `build` has a third argument, the plugin manager, for
            `distill.make_formatter(name, options, manager)`: the same plugins as the rest of the command, loaded once.
    """

    name: str
    summary: str
    build: Callable[..., Teacher | BatchTeacher]
    options: type = NoOptions
    loads_models: bool = False


@dataclass(frozen=True, slots=True)
class FormatterSpec:
    """A chat format the user may name: `--formatter NAME`. `options` gives the keys of `-F key=value`."""

    name: str
    summary: str
    build: Callable[[Any], Formatter]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class LabelerSpec:
    """A labeler the user may name: `--labeler NAME`. `options` gives the keys of `-L key=value`.

    `build` is called with (options, encoder). The encoder, a `distill.Encoder`, shows how the chosen formatter and
    tokenizer encode a conversation, for a labeler that must know it.

    Attributes:
        allows: errors of the label check that are this labeler's purpose, such as `partial-answer` for one that leaves
            out a part of answers: `check` and `train` accept them as with `--allow`.
    """

    name: str
    summary: str
    build: Callable[[Any, Any], Labeler]
    options: type = NoOptions
    allows: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TrainerSpec:
    """A trainer the user may name: `--trainer NAME`. `options` gives the keys of `-T key=value`.

    `options=dict` takes any key, with its value read as JSON where it is JSON; `build` checks them.
    """

    name: str
    summary: str
    build: Callable[[Any], Trainer]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A local model the user may name as `--student NAME`, `--teacher NAME` or in `distill generate NAME`.

    Attributes:
        path: called when the model is needed; gives a folder that `from_pretrained` loads. If making it takes
            long, it should report that on standard error.
    """

    name: str
    summary: str
    path: Callable[[], Path]


SoftNeeds = Literal["tokens", "chunks"]
"""What a loss needs of the teacher: likeliest tokens where tokenizers agree, or likelihoods of stretches of text."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """A loss the user may name: `--loss NAME`. `options` gives the keys of `-O key=value`.

    Attributes:
        soft_labels: what it needs of the teacher's log probabilities: `tokens`, most trained tokens must be tokens of
            the teacher's too; `chunks`, stretches of text are enough. None: it looks at the written tokens only.
    """

    name: str
    summary: str
    build: Callable[[Any], Loss]
    options: type = NoOptions
    soft_labels: SoftNeeds | None = None


Spec = TeacherSpec | FormatterSpec | LabelerSpec | TrainerSpec | LossSpec | ModelSpec


def __getattr__(name: str) -> Any:
    """`make_options` and `parse_pairs` were here until 0.1; plugin packages may import them from here still."""
    if name in ("make_options", "parse_pairs"):
        import warnings

        from distill import options

        warnings.warn(f"import {name} from distill.options", DeprecationWarning, stacklevel=2)
        return getattr(options, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
