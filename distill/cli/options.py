"""Click options: those made from settings dataclasses, and those that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from distill.cli.completion import completer
from distill.options import parse_pairs
from distill.settings import Option, options_of

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
        default_text: what happens where it is not given; None: nothing.
    """

    def __init__(self, option: Option):
        self.group = option.about.group
        super().__init__(
            [*_long_last(option.flags), option.name],
            type=_click_type(option),
            is_flag=True if option.kind is bool else None,
            multiple=option.pairs or (option.many and not option.about.commas),
            required=option.required,
            metavar=option.about.metavar,
            callback=_parse_pairs if option.pairs else None,
            help=option.about.help,
            shell_complete=completer(option.field),
        )
        self.default_text = _default_text(option)

    def get_help_extra(self, context: click.Context) -> Any:
        """The default, also where it is not a value but a rule."""
        extra = super().get_help_extra(context)
        if self.default_text is not None:
            extra["default"] = self.default_text
        return extra


def settings_options(settings: type, *, leave_out: Sequence[str] = ()) -> Callable[[F], F]:
    """Decorate a command with the options of a settings class.

    The command gets them as keyword arguments under their Python names; `given` picks those that were used.

    Args:
        settings: the dataclass.
        leave_out: options that the command does not have, by their Python names.
    """

    def decorate(function: F) -> F:
        chosen = [option for option in options_of(settings) if option.name not in leave_out]
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
    if option.kind is bool or option.pairs:
        return None
    if option.choices is not None:
        return click.Choice(option.choices)
    return click.Path(path_type=Path) if option.kind is Path else option.kind


def _parse_pairs(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> dict[str, str] | None:
    return parse_pairs(value, parameter.opts[0]) or None


def _default_text(option: Option) -> str | None:
    if option.about.unset is not None:
        return option.about.unset
    return None if option.kind is bool or option.usual in (None, (), {}, "") else str(option.usual)


def json_option(function: F) -> F:
    """`--json`: machine output."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else there."
    )(function)
