"""What distill has asked and trained, and what it took: two observer hooks, a command, one SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import click

import distill

TABLES = """
CREATE TABLE IF NOT EXISTS answers (id TEXT, file TEXT, teacher TEXT, tokens_in INTEGER, tokens_out INTEGER, at TEXT);
CREATE TABLE IF NOT EXISTS trainings (run TEXT, steps INTEGER, loss REAL, at TEXT);
"""

ANSWERS = """
SELECT teacher, count(*) AS answers, sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out,
       count(DISTINCT file) AS files, min(at) AS first, max(at) AS last
FROM answers WHERE at >= ? GROUP BY teacher ORDER BY last DESC
"""

TRAININGS = "SELECT run, steps, loss, at FROM trainings WHERE at >= ? ORDER BY at DESC"


def ledger_file() -> Path | None:
    """Where the ledger is: `$DISTILL_LEDGER`. None: it is not set, and nothing is entered."""
    named = os.environ.get("DISTILL_LEDGER")
    return Path(named).expanduser() if named else None


@cache
def opened(file: Path) -> sqlite3.Connection:
    """The ledger, made where it is not there; it stays open, since opening costs more than an entry."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ledger = sqlite3.connect(file, timeout=30, check_same_thread=False)
    ledger.row_factory = sqlite3.Row
    ledger.execute("PRAGMA journal_mode = WAL")  # many collections may write at a time
    ledger.execute("PRAGMA synchronous = NORMAL")
    ledger.executescript(TABLES)
    return ledger


@distill.hookimpl
def transcript_collected(transcript: distill.Transcript, run: distill.CollectRun) -> None:
    """Enter an answer: its teacher and token counts, not its text."""
    if (file := ledger_file()) is None:
        return
    usage = transcript.metadata.get("usage") or {}
    tokens = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    with opened(file) as ledger:
        row = (transcript.id, str(Path(run.out).resolve()), run.teacher, *tokens, now())
        ledger.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)


@distill.hookimpl
def training_finished(run: Path, result: distill.TrainResult) -> None:
    """Enter a training."""
    if (file := ledger_file()) is None:
        return
    with opened(file) as ledger:
        row = (str(Path(run).resolve()), result.steps, result.loss, now())
        ledger.execute("INSERT INTO trainings VALUES (?, ?, ?, ?)", row)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def report(file: Path, since: str = "") -> dict[str, list[dict[str, object]]]:
    """What a ledger holds.

    Args:
        file: the ledger.
        since: a date such as `2026-01-31`, or the beginning of one.

    Returns:
        `answers`, a row a teacher, and `trainings`, a row each; the newest first.
    """
    return {
        name: [dict(row) for row in opened(file).execute(query, (since,))]
        for name, query in (("answers", ANSWERS), ("trainings", TRAININGS))
    }


@click.command("ledger")
@click.option("--since", default="", metavar="DATE", help="Only what came on or after this date, such as 2026-01-31.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ledger(since: str, as_json: bool) -> None:
    """Show what has been asked and trained, and what it took: the entries in the file $DISTILL_LEDGER."""
    if (file := ledger_file()) is None:
        raise distill.UsageError("DISTILL_LEDGER names no file", "export DISTILL_LEDGER=~/ledger.sqlite3")
    found = report(file, since)
    if as_json:
        click.echo(json.dumps(found))
        return
    for row in found["answers"]:
        tokens = f"{row['tokens_in'] or 0} tokens in, {row['tokens_out'] or 0} out"
        click.echo(f"{row['teacher']!a}: {row['answers']} answers in {row['files']} files, {tokens}")
    for row in found["trainings"]:
        loss = "" if row["loss"] is None else f", mean loss {row['loss']:.4f}"
        click.echo(f"{row['at']}  {row['run']!a}: {row['steps']} steps{loss}")
    if not any(found.values()):
        click.echo("nothing yet", err=True)


@distill.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `distill ledger`."""
    cli.add_command(ledger)
