"""`distill compare`: is the student better than its base, and as good as its teacher?"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli.completion import runs as complete_runs
from distill.cli.options import given, json_option, settings_options
from distill.cli.terminal import note, printable
from distill.comparison.settings import NOT_BETTER, CompareSettings
from distill.pages.environment import counted, shown
from distill.plugins import PluginManager
from distill.progress import PartProgress
from distill.settings import settings_from

if TYPE_CHECKING:
    from distill.comparison import Comparisons
    from distill.comparison.result import Comparison, Difference, Interval, Metric, PromptedBase, Sample

_COLOURS = {"better": "green", "worse": "red", "broken": "red", "mixed": "yellow"}


@click.command("compare", short_help="Is the student better than its base?")
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path), shell_complete=complete_runs
)
@click.option(
    "--data",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Held-out conversations; may be repeated.  [default: those that `train --hold-out` left in RUN]",
)
@settings_options(CompareSettings)
@click.option("--samples", type=click.IntRange(0), default=3, show_default=True, help="Questions to show with answers.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page of it, with all answers.")
@click.option(
    "--fail-unless-better",
    is_flag=True,
    help=f"Exit with code {NOT_BETTER} unless the student is better than its base, for scripts and CI.",
)
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    runs: tuple[Path, ...],
    data: tuple[Path, ...],
    samples: int,
    html: Path | None,
    fail_unless_better: bool,
    as_json: bool,
    **words: Any,
) -> int:
    """Compare the student in RUN with its base, on conversations it was not trained on.

    --prompted-base asks the base once more, with the prompt that only the teacher saw (`collect --teacher-system`): has
    the student learned what the prompt tells, and how many prompt tokens does it save?

    Several runs are compared on the same conversations: each student with its base, and with the first student.

    Every answer of the teacher is a question, after all that was said before it. Two things are measured, with 95 %
    confidence intervals from resampling the conversations: how likely each model finds the teacher's answer, and how
    close to it the model's own answer is. Both models answer greedily, in the student's chat format.

    The student is better if the teacher's answers became more likely or its own came closer to them, and neither got
    worse, nor its stop rate. The exit code does not depend on it unless you add --fail-unless-better. Answers of a
    teacher or a judge are kept in RUN/comparison/, and never paid for twice.

    \b
        distill compare run --data held-out.jsonl --html report.html
        distill compare run --data held-out.jsonl --judge openai:gpt-5-mini
        distill compare copy masked --data held-out.jsonl --html students.html
    """
    from distill.comparison import Comparisons, compare, compare_runs
    from distill.comparison.page import comparison_page
    from distill.comparison.students_page import students_page
    from distill.pages import check_page_target, write_page

    settings = settings_from(CompareSettings, given(words))
    if html is not None:
        check_page_target(html)
    progress = PartProgress()
    found: Comparison | Comparisons
    try:
        if len(runs) == 1:
            found = compare(runs[0], data, manager, settings, note=note, on_progress=progress)
        else:
            found = compare_runs(runs, data, manager, settings, note=note, on_progress=progress)
    finally:
        progress.close()
    if html is not None:
        write_page(html, students_page(found) if isinstance(found, Comparisons) else comparison_page(found, runs[0]))
    if as_json:
        click.echo(found.to_json())
    elif isinstance(found, Comparisons):
        show_students(found)
    else:
        show(found, samples)
    all_of_them = found.comparisons if isinstance(found, Comparisons) else [found]
    all_better = all(one.verdict == "better" for one in all_of_them)
    return NOT_BETTER if fail_unless_better and not all_better else 0


def show(comparison: Comparison, samples: int) -> None:
    """Print a comparison for people: the verdict, the table, some answers."""
    for skipped in comparison.skipped[:5]:
        note(f"not used: {skipped['source']}: {skipped['reason']}")
    if len(comparison.skipped) > 5:
        note(f"not used: {len(comparison.skipped) - 5} more")
    for warning in comparison.warnings:
        click.secho(f"Warning: {printable(warning)}", fg="yellow", err=True)
    click.secho(comparison.headline, fg=_COLOURS.get(comparison.verdict), bold=True)
    for line in filter(None, (comparison.summary, *comparison.reasons)):
        click.echo(_wrapped(printable(line)))
    click.echo(
        f"\n{counted(comparison.questions, 'answer')} of {counted(comparison.conversations, 'held-out conversation')}\n"
    )
    for row in _table(comparison):
        click.echo(row)
    if comparison.prompted is not None:
        show_prompted(comparison.prompted, comparison.metrics)
    for sample in comparison.samples[:samples]:
        _show_sample(sample)


def show_prompted(prompted: PromptedBase, metrics: Sequence[Metric]) -> None:
    """Print how the student compares with its base when the base gets the teacher's prompt."""
    click.secho(f"\n{prompted.headline}", fg=_COLOURS.get(prompted.verdict), bold=True)
    for row in _differences(prompted.differences, metrics, "student − prompted base"):
        click.echo(row)


def _differences(differences: Sequence[Difference], metrics: Sequence[Metric], title: str) -> list[str]:
    """Differences between two models, one row each."""
    known = {metric.name: metric for metric in metrics}
    rows = [["", title, "95 % interval", ""]]
    for one in differences:
        if metric := known.get(one.metric):
            rows.append([metric.title + (f" ({metric.unit})" if metric.unit else ""), *_change(one, metric)])
    return _columns(rows)


def _wrapped(text: str) -> str:
    """A sentence, indented, as wide as the terminal or 100 columns."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    return textwrap.fill(text, max(40, width), initial_indent="  ", subsequent_indent="  ")


def _table(comparison: Comparison) -> list[str]:
    """The metrics, one row each."""
    changes = {one.metric: one for one in comparison.differences}
    rows = [["", *(one.title for one in comparison.standings), "student − base", "95 % interval", ""]]
    for metric in comparison.metrics:
        figures = [_figure(one.figures.get(metric.name), metric) for one in comparison.standings]
        name = metric.title + (f" ({metric.unit})" if metric.unit else "")
        rows.append([name, *figures, *_change(changes.get(metric.name), metric)])
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines; the first and the last column begin at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for n, cell in enumerate(row):
            side = "<" if n in (0, len(row) - 1) else ">"
            cells.append(f"{cell:{side}{widths[n]}}")
        lines.append("  ".join(cells).rstrip())
    return lines


def show_students(found: Comparisons) -> None:
    """Print several students for people: one row each, then each against the first."""
    for one in found.comparisons:
        for warning in one.warnings:
            click.secho(f"Warning: {printable(one.run)}: {printable(warning)}", fg="yellow", err=True)
    students = [(one.run, one.verdict, one.metrics_of("student")) for one in found.comparisons]
    click.echo("\n".join(students_table(students)))
    if found.settings:
        click.echo("\nSettings that differ:")
        rows = [[name, *(printable(shown(value)) for value in values), ""] for name, values in found.settings.items()]
        click.echo("\n".join(f"  {line}" for line in _columns(rows)))
    for one in found.comparisons:
        if one.prompted is not None:
            click.echo(f"\n{printable(one.run)}: {one.prompted.headline}")
    for other in found.between:
        click.secho(f"\n{printable(other.run)} against {printable(other.first)}", bold=True)
        click.echo("\n".join(_differences(other.differences, found.metrics, "difference")))


def students_table(students: Sequence[tuple[str, str, Mapping[str, float]]]) -> list[str]:
    """Students as the lines of a table.

    Args:
        students: run folder, verdict, and metrics by name.
    """
    from distill.comparison.metrics import METRICS

    metrics = [metric for metric in METRICS if any(metric.name in values for _, _, values in students)]
    rows = [["", *(metric.title for metric in metrics), "against its base"]]
    for run, verdict, values in students:
        figures = [_value(values.get(metric.name), metric) for metric in metrics]
        rows.append([printable(run), *figures, verdict])
    return _columns(rows)


def _figure(figure: Interval | None, metric: Metric) -> str:
    return _value(None if figure is None else figure.value, metric)


def _value(value: float | None, metric: Metric) -> str:
    return "–" if value is None else metric.format(value).removesuffix(" %")


def _change(one: Difference | None, metric: Metric) -> list[str]:
    if one is None:
        return ["", "", ""]
    bounds = [bound for bound in (one.change.low, one.change.high) if bound is not None]
    texts = [metric.format(value, sign=True).removesuffix(" %") for value in (one.change.value, *bounds)]
    outcome = one.outcome if metric.better else ""
    return [texts[0], " to ".join(texts[1:]), outcome if outcome != "no difference" else "="]


def _show_sample(sample: Sample) -> None:
    from distill.comparison.result import title_of

    click.secho(f"\n{printable(sample.source)}, answer {sample.turn + 1}", bold=True)
    said = (sample.messages[-1].content or "") if sample.messages else ""
    rows = [("question", said), ("teacher", sample.reference)]
    rows += [
        (f"{who} again" if who == "teacher" else title_of(who), given.text) for who, given in sample.answers.items()
    ]
    for who, text in rows:
        click.echo(f"  {who:<13}{_cut(printable(text))}")


def _cut(text: str, width: int = 100) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
