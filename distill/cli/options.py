"""Click options: those made from settings dataclasses, and those that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from distill.options import parse_pairs
from distill.settings import Option, options_of
from distill.transcripts.dialects import DIALECTS

F = TypeVar("F", bound=Callable[..., Any])


class GroupedCommand(click.Command):
    """A command whose `--help` lists its options under headings."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group of options, in the order in which they first appear; the ungrouped first."""
        groups: dict[str, list[tuple[str, str]]] = {"": []}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", ""), []).append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(group or "Options"):
                    formatter.write_dl(records)


class SettingOption(click.Option):
    """A click option made from a field of a settings dataclass.

    Attributes:
        group: its heading in `--help`.
    """

    def __init__(self, option: Option):
        self.group = option.about.group
        super().__init__(
            [*_long_last(option.flags), option.name],
            type=_click_type(option),
            is_flag=True if option.kind is bool else None,
            multiple=option.many or option.pairs,
            required=option.default is dataclasses.MISSING,
            metavar=option.about.metavar,
            callback=_parse_pairs if option.pairs else None,
            help=option.about.help,
        )
        self._default_text = _default_text(option)

    def get_help_extra(self, context: click.Context) -> Any:
        """The default, also where it is not a value but a rule; bounds are told when they are broken."""
        extra = super().get_help_extra(context)
        extra.pop("range", None)
        if self._default_text is not None:
            extra["default"] = self._default_text
        return extra


def settings_options(settings: type, *, only: Sequence[str] | None = None) -> Callable[[F], F]:
    """Decorate a command with the options of a settings class.

    The command gets them as keyword arguments under their Python names; `given` picks those that were used.

    Args:
        settings: the dataclass.
        only: take only these, by their Python names.
    """

    def decorate(function: F) -> F:
        chosen = [option for option in options_of(settings) if only is None or option.name in only]
        parameters: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
        parameters.extend(SettingOption(option) for option in reversed(chosen))
        return function

    return decorate


def given(words: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were used on the command line: not None, False or empty."""
    return {name: value for name, value in words.items() if value is not None and value is not False and value != ()}


def _long_last(flags: Sequence[str]) -> list[str]:
    """`-T, --teacher-option`, as help texts are written."""
    return sorted(flags, key=lambda flag: flag.startswith("--"))


def _click_type(option: Option) -> Any:
    about = option.about
    if option.kind is bool or option.pairs:
        return None
    if option.choices is not None:
        return click.Choice(option.choices)
    low = about.min if about.min is not None else about.above
    high = about.max if about.max is not None else about.below
    if option.kind in (int, float) and (low is not None or high is not None):
        number: Any = click.IntRange if option.kind is int else click.FloatRange
        return number(low, high, min_open=about.above is not None, max_open=about.below is not None)
    return click.Path(path_type=Path) if option.kind is Path else option.kind


def _parse_pairs(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str] | None:
    return parse_pairs(value, parameter.opts[0]) or None


def _default_text(option: Option) -> str | None:
    if option.about.unset is not None:
        return option.about.unset
    if option.kind is bool or option.default is dataclasses.MISSING or option.default in (None, (), {}, ""):
        return None
    return str(option.default)


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
