"""`distill check`: the label check over a whole data set, before anything is trained."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill import api
from distill.cli.options import GroupedCommand, given, json_option, settings_options
from distill.cli.terminal import print_json, printable
from distill.dataset.settings import CheckSettings
from distill.pages.environment import counted
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from distill.dataset.check import CheckReport
    from distill.dataset.findings import Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}


@click.command("check", cls=GroupedCommand, short_help="Check what will be trained, before it is.")
@click.argument("data", nargs=-1, required=True, metavar="DATA…", type=click.Path(path_type=Path))
@settings_options(CheckSettings)
@json_option
@click.pass_obj
def command(manager: PluginManager, /, data: tuple[Path, ...], as_json: bool, **words: Any) -> int:
    """Verify that DATA will be trained the way you intend, with this student, chat format and labeler.

    Every trained answer is decoded from its own tokens and compared with the assistant's text; end-of-turn markers,
    control tokens, roles, lengths, duplicates and leaks are checked. Only the student's tokenizer is loaded.

    DATA is a file (JSON lines, JSON, CSV, TSV or Parquet, also compressed), a data set of the hub as
    hub:owner/name[:split], or - for standard input.

    Findings are errors, warnings or notes, each with a code, the first rows and a hint. An error makes the exit
    code 1, and keeps `distill train` from starting; --allow CODE accepts it.
    """
    report = api.check(data, manager=manager, **given(words))
    if as_json:
        hidden = ("findings", "allowed", "shares")
        counts = {one.name: getattr(report, one.name) for one in fields(report) if one.name not in hidden}
        if report.shares.rows:
            counts["soft_labels"] = report.shares.as_dict()
        print_json({"ok": report.ok, **counts, "findings": [finding.as_dict() for finding in report.findings]})
    else:
        _show(report)
    return 0 if report.ok else 1


def _show(report: CheckReport) -> None:
    click.echo(
        f"{counted(report.rows, 'row')}: {report.trained_rows} trained as {counted(report.examples, 'example')}, "
        f"{report.skipped_rows} not; {report.trained_tokens:,} of {counted(report.tokens, 'token')} count in the loss; "
        f"the longest has {counted(report.longest, 'token')}"
    )
    if report.repeated_answers:
        share = 100 * report.repeated_answers / report.answers
        click.echo(
            f"{report.repeated_answers} of {report.answers} answers ({share:.0f} %) repeat another word for word"
        )
    if report.shares.rows:
        click.echo(str(report.shares))
    for finding in report.findings:
        _show_finding(finding, finding.code in report.allowed)
    if report.ok:
        click.secho("No error: every trained answer reads back as the assistant wrote it.", fg="green")


def _show_finding(finding: Finding, allowed: bool) -> None:
    from distill.dataset.findings import CODES

    code = CODES[finding.code]
    severity = f"{finding.severity}, allowed" if allowed else finding.severity
    click.secho(f"\n{severity}: {finding.code} × {finding.count}", fg=_COLOURS[finding.severity], bold=True)
    click.echo(f"  {code.meaning}")
    for where, detail in finding.rows:
        click.echo(f"    {printable(f'{where}: {detail}' if detail else where)}")
    if finding.count > len(finding.rows):
        click.echo(f"    and {finding.count - len(finding.rows)} more")
    click.echo(f"  → {code.hint}")
