"""`distill run`: prompts → student in one file, each step done once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill.cli.compare import Bars
from distill.cli.options import json_option
from distill.cli.terminal import note, print_json, printable
from distill.cli.train import Progress
from distill.comparison.verdict import NOT_BETTER
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from distill.recipes import RecipeReport


@click.command("run", short_help="Do all of it, as a recipe file says.")
@click.argument("recipe", metavar="RECIPE.yaml", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything, and say what would run, why, and what it would take.")
@json_option
@click.pass_obj
def command(manager: PluginManager, recipe: Path, dry_run: bool, as_json: bool) -> int:
    """Do what RECIPE.yaml says: collect, check, train, compare, each only where something has changed for it.

    \b
        prompts: prompts.jsonl
        out: spanish
        collect: {teacher: openai:gpt-5-mini, max-tokens: 64, max-usd: 2}
        train: {student: smollm2, labeler: masked, epochs: 3, hold-out: 10%}
        compare: {}

    Keys are the long options of the commands; `teacher-options`, `formatter-options`, `labeler-options` and
    `trainer-options` are mappings and stand for -T, -F, -L and -T. Paths are relative to the recipe. `check` takes
    `allow` and `against`, `collect` also `max-failed: 5%`, the share of rows that may fail; `max-usd` is for each start
    of the recipe; nothing is compared without `compare`. With `compare: {require: better}` the exit code is 3 if the
    student is not better than its base. Secrets belong in the environment.

    Everything that can be checked is checked before the first request. Stopped or killed at any moment, the same
    command goes on. A step runs again when what it depends on has changed, or what it made is gone. Nothing is
    overwritten: with other settings it makes transcripts-2.jsonl, run-2, …; with the old ones again, the old run is
    found. Every answer ever bought is kept in OUT/answers.jsonl, and none is bought twice.
    """
    from distill.recipes import run_recipe
    from distill.recipes.steps import Watch

    progress, bars = Progress(), Bars()
    try:
        report = run_recipe(recipe, manager, dry_run=dry_run, watch=Watch(note, progress, True, bars))
    finally:
        progress.close()
        bars.close()
    if as_json:
        print_json(asdict(report))
    elif dry_run:
        _show_plan(report)
    else:
        _show(report)
    if report.failed_requirement is None or dry_run:
        return 0
    note(f"the recipe requires: {report.failed_requirement}")
    return NOT_BETTER


def _show_plan(report: RecipeReport) -> None:
    for step in report.steps:
        click.echo(printable(f"{step.step:<8} {step.state}" + (f": {step.why}" if step.why else "")))
        for line in step.plan:
            click.echo(printable(f"         {line}"))


def _show(report: RecipeReport) -> None:
    results = {step.step: step.result for step in report.steps}
    trained, compared = results["train"] or {}, results.get("compare")
    click.echo(
        printable(
            f"{report.run}: trained on {trained['trained_rows']} of {trained['rows']} rows, {trained['steps']} steps, "
            f"mean loss {trained['loss']:.4f}"
        )
    )
    if compared is not None:
        click.secho(f"student against its base: {compared['verdict']}", bold=True)
        for reason in compared["reasons"]:
            click.echo(f"  {printable(reason)}")
