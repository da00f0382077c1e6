"""Fixtures for collecting: quick retries, a clean environment, and the command line in and out of process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distill.cli.main import main
from distill.collection import schedule
from distill.testing import FaultyServer

KEY = "sk-secret-0123456789abcdefghij"


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "FIRST_WAIT", 0.01)
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "DISTILL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `distill …` in this process."""

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `distill …` as a process of its own."""
    started = []

    def start(*argv: object, **kwargs: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "distill", *map(str, argv)],
            stdin=kwargs.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=kwargs.pop("stderr", subprocess.PIPE),
            text=True,
            **kwargs,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[..., Path]:
    """Write a prompt file: of so many lines, of these texts, or of these rows."""

    def write(what: int | list, name: str = "") -> Path:
        rows = [f"prompt {n}" for n in range(what)] if isinstance(what, int) else what
        if all(isinstance(row, str) for row in rows):
            path = tmp_path / (name or "prompts.txt")
            path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        else:
            path = tmp_path / (name or "prompts.jsonl")
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where transcripts go."""
    return tmp_path / "out.jsonl"


@pytest.fixture
def read() -> Callable[[Path], list[dict[str, Any]]]:
    """Read a JSONL file strictly."""
    return lambda path: [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


@pytest.fixture
def failures(out: Path, read: Callable) -> Callable[[], list[dict[str, Any]]]:
    """The failed rows; none where there is no such file."""
    path = Path(f"{out}.failed.jsonl")
    return lambda: read(path) if path.exists() else []


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """An API key, with the newline that keys from files have."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    return KEY


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """A server that answers well."""
    with FaultyServer() as running:
        yield running


@pytest.fixture
def ask(cli: Callable[..., Ran], prompts: Callable[..., Path], out: Path) -> Callable[..., tuple[Ran, FaultyServer]]:
    """Collect some prompts from a server that follows a script."""

    def run(script: Any, *argv: object, count: int = 1, file: Path | None = None) -> tuple[Ran, FaultyServer]:
        with FaultyServer(script) as server:
            words = ["collect", file or prompts(count), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
            ran = cli(*words, "--json", *argv)
            return ran, server

    return run
