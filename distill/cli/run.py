"""`distill run`: prompts → student in one file, each step done once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill import api
from distill.cli.options import json_option
from distill.cli.terminal import note, print_json, printable
from distill.comparison.settings import NOT_BETTER
from distill.pages.environment import counted
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

    A list where `train` takes one value, such as `learning-rate: [3e-5, 1e-4, 3e-4]`, makes a student per value, and
    several lists one per combination: each in a run folder of its own, all in one comparison.

    Everything that can be checked is checked before the first request. If it is interrupted, rerun the same command to
    resume. A step runs again when what it depends on has changed, or what it made is gone. Nothing is overwritten: with
    other settings it makes transcripts-2.jsonl, run-2, …; with the old ones again, the old run is found. Every answer
    is kept in OUT/answers.jsonl, and none is paid for twice.
    """
    report = api.run(recipe, dry_run=dry_run, manager=manager)
    if as_json:
        print_json(asdict(report))
    elif dry_run:
        _show_plan(report)
    else:
        show_report(report)
    if report.failed_requirement is None or dry_run:
        return 0
    note(f"the recipe requires: {report.failed_requirement}")
    return NOT_BETTER


def _show_plan(report: RecipeReport) -> None:
    if report.students > 1:
        click.echo(f"{report.students} students, one per combination of the values in lists")
    for step in report.steps:
        name = f"{step.step} {step.student}" if step.student else f"{step.step:<8}"
        click.echo(printable(f"{name} {step.state}" + (f": {step.why}" if step.why else "")))
        for line in step.plan:
            click.echo(printable(f"         {line}"))


def show_report(report: RecipeReport) -> None:
    """Print what became of a recipe: the verdict first, then how the student was trained and where everything is."""
    compared = report.result("compare")
    if "students" in compared:
        from distill.cli.compare import students_table

        students = [(one["run"], one["verdict"], one["metrics"]) for one in compared["students"]]
        click.echo("\n".join(students_table(students)) + "\n")
    elif compared:
        click.secho(f"student against its base: {compared['verdict']}", bold=True)
        for reason in compared["reasons"]:
            click.echo(f"  {printable(reason)}")
    for step in report.steps:
        if step.step == "train" and step.result is not None:
            trained = step.result
            click.echo(
                printable(
                    f"{step.made}: trained on {trained['trained_rows']} of {counted(trained['rows'], 'row')}, "
                    f"{counted(trained['steps'], 'step')}, mean loss {trained['loss']:.4f}"
                )
            )
    if report.page is not None:
        click.echo(printable(f"all answers: {report.page}"))
