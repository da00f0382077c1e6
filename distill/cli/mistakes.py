"""Mistakes on the command line, told like all errors: what is wrong, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import click

from distill.errors import UsageError

OTHER_NAMES = {
    "accelerator": "device",
    "adapter": "lora",
    "api-base": "base-url",
    "base-model": "student",
    "batch": "batch-size",
    "data-format": "from",
    "dataset": "data",
    "eval-split": "hold-out",
    "grad-accum": "accumulation",
    "gradient-accumulation": "accumulation",
    "gradient-accumulation-steps": "accumulation",
    "input-format": "from",
    "learning-rate-max": "learning-rate",
    "lora-r": "lora-rank",
    "lora-target-modules": "lora-targets",
    "lr": "learning-rate",
    "max-new-tokens": "max-tokens",
    "max-seq-len": "max-length",
    "max-seq-length": "max-length",
    "micro-batch-size": "batch-size",
    "model": "student",
    "model-name": "student",
    "model-name-or-path": "student",
    "n": "samples",
    "num-epochs": "epochs",
    "num-train-epochs": "epochs",
    "num-workers": "concurrency",
    "output": "out",
    "output-dir": "out",
    "output-file": "out",
    "parallel": "concurrency",
    "per-device-train-batch-size": "batch-size",
    "requests-per-minute": "rpm",
    "resume-from-checkpoint": "resume",
    "sample-packing": "packing",
    "sequence-len": "max-length",
    "system-prompt": "system",
    "target-modules": "lora-targets",
    "template": "formatter",
    "temp": "temperature",
    "test-size": "hold-out",
    "to-format": "to",
    "tokens-per-minute": "tpm",
    "use-lora": "lora",
    "val-set-size": "hold-out",
    "workers": "concurrency",
}
"""Names of options in other tools → ours, without the dashes."""


def explain(error: click.UsageError) -> UsageError:
    """Turn click's error into one with a hint: the nearest option, command or choice, and where help is."""
    command = error.ctx.command_path if error.ctx is not None else "distill"
    help_hint = f"`{command} --help` lists them"
    if isinstance(error, click.NoSuchOption):
        if error.ctx is not None and error.option_name in _names(error.ctx.parent):
            hint = f"write it before the command: `distill {error.option_name} {error.ctx.info_name} …`"
            return UsageError(f"{command} has no option {error.option_name}", hint)
        known = _names(error.ctx)
        near = _meant(error.option_name, known)
        return UsageError(
            f"{command} has no option {error.option_name}", f"did you mean {near}? {help_hint}" if near else help_hint
        )
    text = error.format_message().rstrip(".")
    unknown = re.match(r"No such command '(.*?)'", text)
    if unknown and error.ctx is not None and isinstance(error.ctx.command, click.Group):
        near = _nearest(unknown[1], error.ctx.command.list_commands(error.ctx))
        return UsageError(
            f"{command} has no command {unknown[1]!r}", f"did you mean {near}? {help_hint}" if near else help_hint
        )
    if isinstance(error, click.BadParameter) and error.param is not None and isinstance(error.param.type, click.Choice):
        choices = [str(choice) for choice in error.param.type.choices]
        value = re.match(r"'(.*?)' is not one of", error.message)
        near = _nearest(value[1], choices) if value else None
        what = f"{error.param.opts[0]} cannot be {value[1]!r}" if value else text
        known_text = f"it is one of: {', '.join(choices)}"
        return UsageError(what, f"did you mean {near!r}? {known_text}" if near else known_text)
    if isinstance(error, click.MissingParameter) and error.param is not None and error.ctx is not None:
        if not isinstance(error.param, click.Option):
            return UsageError(f"{command} needs {error.param.make_metavar(error.ctx)}", f"see `{command} --help`")
        flag, help_text = error.param.opts[0], error.param.help or ""
        return UsageError(f"{command} needs {flag}", f"{flag} {error.param.make_metavar(error.ctx)}: {help_text}")
    number = re.match(r"'(.*?)' is not a valid (float|integer)", getattr(error, "message", ""))
    if number and isinstance(error, click.BadParameter) and error.param is not None:
        wanted = "number" if number[2] == "float" else "whole number"
        return UsageError(f"{error.param.opts[0]} must be a {wanted}, not {number[1]!r}", f"see `{command} --help`")
    if "unexpected extra argument" in text:
        return UsageError(text, f"a text with spaces needs quotes; see `{command} --help`")
    return UsageError(text[:1].lower() + text[1:] if text.startswith("Invalid") else text, f"see `{command} --help`")


def _options(context: click.Context | None) -> list[click.Option]:
    if context is None:
        return []
    return [parameter for parameter in context.command.get_params(context) if isinstance(parameter, click.Option)]


def _names(context: click.Context | None) -> list[str]:
    return [name for parameter in _options(context) for name in parameter.opts]


def _meant(option: str, known: Iterable[str]) -> str | None:
    """The option that was probably meant: by its name in other tools, or the nearest one."""
    known = list(known)
    name = option.lstrip("-").replace("_", "-").lower()
    ours = f"--{OTHER_NAMES.get(name, name)}"
    return ours if ours in known else _nearest(f"--{name}", known)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)
