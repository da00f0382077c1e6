"""`distill generate`: ask a student, its base, or any local model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from distill import api
from distill.cli.completion import runs_and_models
from distill.cli.options import given, json_option, settings_options
from distill.cli.terminal import print_json, printable
from distill.errors import UsageError
from distill.models.settings import GenerateSettings
from distill.plugins import PluginManager
from distill.settings import settings_from

if TYPE_CHECKING:
    from distill.models.generate import TraceStep


_LOADING = ("formatter", "formatter_options", "trust_remote_code")


@click.command("generate", short_help="Let a student answer prompts.")
@click.argument("model", metavar="RUN|MODEL", shell_complete=runs_and_models)
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT…")
@settings_options(GenerateSettings)
@click.option(
    "--trace",
    is_flag=True,
    help="Show, token by token, what the model would write after each prefix, next to what the text has.",
)
@click.option("--answer", metavar="TEXT", help="With --trace: the answer to look at, instead of the model's own.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    model: str,
    prompts: tuple[str, ...],
    trace: bool,
    answer: str | None,
    as_json: bool,
    **words: Any,
) -> None:
    """Let a trained student (or any local model) answer each PROMPT.

    A student is asked in the chat format it was trained in, which is saved with it.

    \b
        distill generate run 'How do you say "dog" in Spanish?'
        distill generate run 'How do you say "dog" in Spanish?' --trace --answer perro
    """
    if answer is not None and not trace:
        raise UsageError("--answer goes with --trace", "add --trace")
    if not all(prompt.strip() for prompt in prompts):
        raise UsageError("a prompt is empty")
    options = given(words)
    settings = settings_from(GenerateSettings, options)
    loading = {name: value for name, value in options.items() if name in _LOADING}
    chat = api.load_chat_model(model, manager=manager, **loading)
    for prompt in prompts:
        reply, thought, reason = answer, None, None
        if reply is None:
            [made] = api.generate(chat, prompt, **options)
            reply, thought, reason = made.text, made.reasoning, made.finish_reason
        steps = api.trace(chat, prompt, reply, reasoning=thought, system=settings.system) if trace else []
        if as_json:
            row = {"prompt": prompt, "answer": reply, "finish_reason": reason}
            row |= {} if thought is None else {"reasoning": thought}
            print_json({**row, "trace": [asdict(step) for step in steps]} if trace else row)
        elif trace:
            _show_trace(steps)
        else:
            if thought is not None:
                click.secho(printable(f"({thought})", newlines=True), err=True, dim=True)
            click.echo(printable(reply, newlines=True))
            if reason == "length":
                limit = "--max-tokens"
                if made.completion_tokens < settings.max_tokens:
                    limit = f"the model takes {chat.max_length} with its question"
                click.echo(f"distill: the answer was cut at {made.completion_tokens} tokens ({limit})", err=True)


def _show_trace(steps: Sequence[TraceStep]) -> None:
    """Print the text's tokens down the page, the model's own choice beside each."""
    click.echo(f"{'the text says':<24}{'p':>6}   {'the model would say':<24}{'p':>6}")
    for step in steps:
        said, would = _cell(step.token), _cell(step.predicted)
        line = f"{said:<24}{step.probability:6.2f}   {would:<24}{step.predicted_probability:6.2f}"
        agrees = step.token_id == step.predicted_id
        click.secho(line.rstrip(), fg="green" if step.answer and agrees else None, dim=not step.answer)


def _cell(token: str, width: int = 22) -> str:
    """A token for a table: quoted, printable, not too long."""
    text = repr(printable(token, newlines=True))[1:-1]
    return "«" + (text if len(text) <= width - 2 else text[: width - 3] + "…") + "»"
