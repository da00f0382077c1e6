"""`distill compare`: is the student better than its base, and as good as its teacher?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli.options import given, json_option, settings_options
from distill.cli.terminal import note, printable
from distill.comparison.settings import CompareSettings
from distill.plugins import PluginManager
from distill.progress import PartProgress
from distill.settings import settings_from

if TYPE_CHECKING:
    from distill.comparison import Comparison
    from distill.comparison.result import Difference, Interval, Metric, Sample

_COLOURS = {"better": "green", "worse": "red", "broken": "red", "mixed": "yellow"}


@click.command("compare", short_help="Is the student better than its base?")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
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
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    /,
    run: Path,
    data: tuple[Path, ...],
    samples: int,
    html: Path | None,
    as_json: bool,
    **words: Any,
) -> int:
    """Compare the student in RUN with its base, on conversations it was not trained on.

    Every answer of the teacher is a question, after all that was said before it. Measured are how likely each model
    finds the teacher's answer, and how close to it is what it says itself, with 95 % intervals from resampling the
    conversations. Both are asked in the student's chat format, greedily.

    The exit code is 0 where the student is better: the teacher's answers became likelier or its own came closer to
    them, and neither got worse, nor how often it stops. Else it is 1. What a teacher or a judge answers stays in
    RUN/comparison/, and is not asked again.

    \b
        distill compare run --data held-out.jsonl --html report.html
        distill compare run --data held-out.jsonl --judge openai:gpt-5-mini
    """
    from distill.comparison import as_json as json_of
    from distill.comparison import compare
    from distill.comparison.page import comparison_page
    from distill.pages import check_page_target, write_page

    settings = settings_from(CompareSettings, given(words))
    if html is not None:
        check_page_target(html)
    progress = PartProgress()
    try:
        comparison = compare(run, data, manager, settings, note=note, on_progress=progress)
    finally:
        progress.close()
    if html is not None:
        write_page(html, comparison_page(comparison, run))
    if as_json:
        click.echo(json_of(comparison))
    else:
        show(comparison, samples)
    return 0 if comparison.verdict == "better" else 1


def show(comparison: Comparison, samples: int) -> None:
    """Print a comparison for people: the table, some answers, the verdict last, where the eye rests."""
    from distill.comparison.page import VERDICTS

    for row in comparison.skipped[:5]:
        note(f"not used: {row['source']}: {row['reason']}")
    if len(comparison.skipped) > 5:
        note(f"not used: {len(comparison.skipped) - 5} more")
    for warning in comparison.warnings:
        click.secho(f"Warning: {printable(warning)}", fg="yellow", err=True)
    click.echo(f"{comparison.questions} answers of {comparison.conversations} held-out conversations\n")
    for row in _table(comparison):
        click.echo(row)
    for sample in comparison.samples[:samples]:
        _show_sample(sample)
    click.secho(f"\n{VERDICTS[comparison.verdict]}", fg=_COLOURS.get(comparison.verdict), bold=True)
    for reason in comparison.reasons:
        click.echo(f"  {printable(reason)}")


def _table(comparison: Comparison) -> list[str]:
    """The metrics, a row each, in columns as wide as they must be."""
    changes = {one.metric: one for one in comparison.differences}
    rows = [["", *(one.who for one in comparison.standings), "student − base", "95 % interval", ""]]
    for metric in comparison.metrics:
        figures = [_figure(one.figures.get(metric.name), metric) for one in comparison.standings]
        name = metric.title + (f" ({metric.unit})" if metric.unit else "")
        rows.append([name, *figures, *_change(changes.get(metric.name), metric)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'<' if n in (0, len(row) - 1) else '>'}{widths[n]}}" for n, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def _figure(figure: Interval | None, metric: Metric) -> str:
    from distill.comparison.verdict import number

    return "–" if figure is None else number(figure.value, metric).removesuffix(" %")


def _change(one: Difference | None, metric: Metric) -> list[str]:
    from distill.comparison.verdict import number

    if one is None:
        return ["", "", ""]
    bounds = [bound for bound in (one.change.low, one.change.high) if bound is not None]
    texts = [number(value, metric, sign=True).removesuffix(" %") for value in (one.change.value, *bounds)]
    outcome = one.outcome if metric.better else ""
    return [texts[0], " to ".join(texts[1:]), outcome if outcome != "no difference" else "="]


def _show_sample(sample: Sample) -> None:
    click.secho(f"\n{printable(sample.source)}, answer {sample.turn + 1}", bold=True)
    said = (sample.messages[-1].content or "") if sample.messages else ""
    rows = [("question", said), ("teacher", sample.reference)]
    rows += [(f"{who} anew" if who == "teacher" else who, given.text) for who, given in sample.answers.items()]
    for who, text in rows:
        click.echo(f"  {who:<13}{_cut(printable(text))}")


def _cut(text: str, width: int = 100) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
