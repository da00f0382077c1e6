"""Options that several commands share, and how their words become values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from distill.transcripts.dialects import DIALECTS

F = TypeVar("F", bound=Callable)


def json_option(function: F) -> F:
    """`--json`: machine output."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else there."
    )(function)


def from_option(function: F) -> F:
    """`--from NAME`: the format of the rows that are read."""
    return click.option(
        "--from",
        "data_format",
        type=click.Choice(list(DIALECTS)),
        help="The format of the rows that are read.  [default: found out row by row]",
    )(function)


def formatter_options(function: F) -> F:
    """`--formatter NAME` and `-F key=value`."""
    function = click.option(
        "-F",
        "formatter_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="An option of the formatter, e.g. -F response='### Answer:' (`distill plugins --options` lists them).",
    )(function)
    return click.option(
        "--formatter",
        metavar="NAME",
        default="chat-template",
        show_default=True,
        help="The chat format: chat-template (the student's own, or ChatML), special-tokens, or a plugin's.",
    )(function)


def labeler_options(function: F) -> F:
    """`--labeler NAME` and `-L key=value`."""
    function = click.option(
        "-L",
        "labeler_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="An option of the labeler, e.g. -L end_of_turn=false with trl, -L reasoning=false with masked.",
    )(function)
    return click.option(
        "--labeler",
        metavar="NAME",
        default="masked",
        show_default=True,
        help="Which tokens count in the loss: copy (all), masked (the assistant's and its end-of-turn marker), "
        "trl (as TRL's DataCollatorForCompletionOnlyLM), or a plugin's.",
    )(function)


def turns_option(function: F) -> F:
    """`--turns all|last`."""
    return click.option(
        "--turns",
        type=click.Choice(["all", "last"]),
        default="all",
        show_default=True,
        help="Which answers of a conversation are trained: all, or the last alone. An answer with `weight: 0` or "
        "`train: false` never is.",
    )(function)


def allow_option(function: F) -> F:
    """`--allow CODE`: accept an error of the label proof."""
    return click.option(
        "--allow", metavar="CODE", multiple=True, help="Accept this error of the label proof; may be repeated."
    )(function)


def student_option(function: F) -> F:
    """`--student MODEL`."""
    return click.option(
        "--student",
        metavar="MODEL",
        default="bigscience/bloom-560m",
        show_default=True,
        help="The student: a hub id, a model folder, a .gguf file, or a plugin's model (smollm2).",
    )(function)
