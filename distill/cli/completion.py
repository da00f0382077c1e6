"""Shell completion: `distill completion bash|zsh|fish`, and what completes the names of plugins, models and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from distill.options import describe_options
from distill.plugins import PluginManager
from distill.runs import is_run

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_VARIABLE = "_DISTILL_COMPLETE"

_KINDS = {
    "formatter": "formatter",
    "labeler": "labeler",
    "trainer": "trainer",
    "loss": "loss",
    "teacher": "teacher",
    "judge": "teacher",
    "data_format": "dialect",
}
"""Parameter → the kind of plugin that it names."""


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, /, shell: str) -> None:
    """Print the script that completes commands, options, and names of plugins, models and runs in SHELL.

    \b
        eval "$(distill completion bash)"                                   # in ~/.bashrc
        eval "$(distill completion zsh)"                                    # in ~/.zshrc
        distill completion fish > ~/.config/fish/completions/distill.fish
    """
    made = get_completion_class(shell)
    assert made is not None and context.parent is not None
    click.echo(made(context.parent.command, {}, "distill", _VARIABLE).source())


def completer(name: str) -> Completer | None:
    """What completes the parameter with this name; None: what click does by its type."""
    if name in _KINDS:
        return names_of(_KINDS[name])
    if name in ("student", "base"):
        return models
    if name.endswith("_options") and name.removesuffix("_options") in _KINDS:
        return _keys_of(name.removesuffix("_options"))
    return None


def models(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Names of registered models, and folders and files here."""
    known = [_item(name, spec.summary) for name, spec in _specs(context, "model") if name.startswith(start)]
    return [*known, CompletionItem(start, type="file")]


def runs(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Run folders, beside what is typed so far; other folders lead to them."""
    place, _, name = start.rpartition("/")
    folder = Path(place + "/") if "/" in start else Path()
    try:
        found = sorted(path for path in folder.iterdir() if path.name.startswith(name) and is_run(path))
    except OSError:
        found = []
    prefix = f"{place}/" if "/" in start else ""
    here = [CompletionItem(f"{prefix}{path.name}", help="a run") for path in found]
    return here or [CompletionItem(start, type="dir")]


def runs_and_models(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Run folders, registered models, and files."""
    here = [item for item in runs(context, parameter, start) if item.type == "plain"]
    return [*here, *models(context, parameter, start)]


def names_of(kind: str) -> Completer:
    """Completes the names of one kind of plugin."""

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
        return [_item(name, spec.summary) for name, spec in _specs(context, kind) if name.startswith(start)]

    return complete


def _keys_of(name: str) -> Completer:
    """Completes `key=` of the plugin that another option names, or would by default."""

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
        chosen = context.params.get(name) or _default_of(context, name)
        spec = dict(_specs(context, _KINDS[name])).get(str(chosen).partition(":")[0])
        if spec is None:
            return []
        known = {option.name: option.meaning for option in describe_options(spec.options)}
        known |= getattr(spec, "option_help", {})
        return [_item(f"{key}=", meaning) for key, meaning in known.items() if key.startswith(start)]

    return complete


def _default_of(context: click.Context, name: str) -> str | None:
    """The plugin that is used where the option is not given, as the option's own help has it."""
    for parameter in context.command.params:
        if parameter.name == name:
            return getattr(parameter, "default_text", None)
    return None


def _specs(context: click.Context, kind: str) -> list[tuple[str, Any]]:
    manager: PluginManager = context.find_root().obj
    registry = manager.registries[kind]
    return [(name, registry.get(name)) for name in registry.names()]


def _item(name: str, text: str) -> CompletionItem:
    return CompletionItem(name, help=text)
