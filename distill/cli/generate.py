"""`distill generate`: ask a student, its base, or any local model."""

from __future__ import annotations

from dataclasses import asdict

import click

from distill.cli.options import json_option
from distill.cli.terminal import print_json, printable
from distill.errors import UsageError
from distill.options import parse_pairs
from distill.plugins import PluginManager
from distill.types import Message


@click.command("generate", short_help="Let a student answer prompts.")
@click.argument("model", metavar="RUN|MODEL")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT…")
@click.option("--system", metavar="TEXT", help="A system message before each prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="The longest answer.")
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: the likeliest answer."
)
@click.option("--seed", type=int, default=0, show_default=True, help="For sampling.")
@click.option(
    "--formatter",
    metavar="NAME",
    help="The chat format to ask in.  [default: the one that is saved with the model, or ChatML]",
)
@click.option("-F", "formatter_options", metavar="KEY=VALUE", multiple=True, help="An option of the formatter.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option(
    "--trace",
    is_flag=True,
    help="Show, token by token, what the model would say after each prefix, next to what the text says.",
)
@click.option("--answer", metavar="TEXT", help="With --trace: the answer to look at, instead of the model's own.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    model: str,
    prompts: tuple[str, ...],
    system: str | None,
    max_tokens: int,
    temperature: float,
    seed: int,
    formatter: str | None,
    formatter_options: tuple[str, ...],
    trust_remote_code: bool,
    trace: bool,
    answer: str | None,
    as_json: bool,
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
    from distill.models.generate import ChatModel
    from distill.models.references import resolve_model
    from distill.plugins import make_formatter
    from distill.runs.run import ChatFormat, saved_format

    chat_format = ChatFormat(formatter) if formatter else saved_format(model)
    options = {**chat_format.options, **parse_pairs(formatter_options, "-F")}
    made = make_formatter(chat_format.name, options, manager)
    chat = ChatModel.load(resolve_model(model, manager, trust_remote_code), made, chat_format.name)
    before = (Message("system", system),) if system else ()
    for prompt in prompts:
        messages = (*before, Message("user", prompt))
        reply, reason = answer, None
        if reply is None:
            made_answer = chat.generate([messages], max_tokens=max_tokens, temperature=temperature, seed=seed)[0]
            reply, reason = made_answer.text, made_answer.finish_reason
        steps = chat.trace((*messages, Message("assistant", reply))) if trace else []
        if as_json:
            row = {"prompt": prompt, "answer": reply, "finish_reason": reason}
            print_json({**row, "trace": [asdict(step) for step in steps]} if trace else row)
        elif trace:
            _show_trace(steps)
        else:
            click.echo(printable(reply, newlines=True))
            if reason == "length":
                click.echo(f"distill: the answer was cut at {max_tokens} tokens (--max-tokens)", err=True)


def _show_trace(steps: list) -> None:
    """Print the text's tokens down the page, the model's own choice beside each."""
    click.echo(f"{'the text says':<24}{'p':>6}   {'the model would say':<24}{'p':>6}")
    for step in steps:
        said, would = _cell(step.token), _cell(step.predicted)
        line = f"{said:<24}{step.probability:6.2f}   {would:<24}{step.predicted_probability:6.2f}"
        agrees = step.token_id == step.predicted_id
        click.secho(line.rstrip(), fg="green" if step.answer and agrees else None, dim=not step.answer)


def _cell(token: str, width: int = 22) -> str:
    """A token as it can stand in a table: quoted, printable, not too long."""
    text = repr(printable(token, newlines=True))[1:-1]
    return "«" + (text if len(text) <= width - 2 else text[: width - 3] + "…") + "»"
