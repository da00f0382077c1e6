"""A folder with prompts and a recipe, a teacher without a network that counts its requests, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_rows import write_rows

from distill.cli.main import main

TEACHER = '''
"""Answers without a network; fails where it is told to; writes down each request."""

import asyncio
import hashlib
import os

import distill


class Scripted:
    async def ask(self, request):
        text = request.messages[-1].content
        with open(os.environ["ASKED"], "a") as file:
            print(text, file=file)
        await asyncio.sleep(float(os.environ.get("SLOW", "0")))
        if text in os.environ.get("REFUSED", "").split(","):
            raise distill.TeacherError("no answer to that")
        return distill.Answer(distill.Message("assistant", hashlib.sha256(text.encode()).hexdigest()[:12]))


@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("scripted", "for tests", build=lambda options, model: Scripted())]
'''


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """What the teacher was asked until now."""
    log = tmp_path / "asked.txt"
    monkeypatch.setenv("ASKED", str(log))
    return lambda: log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def folder(tmp_path, asked) -> Path:
    """A folder with eight prompts, held-out conversations, and the teacher's plugin."""
    (tmp_path / "teacher.py").write_text(TEACHER)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"question {n}"} for n in range(8)])
    write_rows(tmp_path / "held-out.jsonl", [{"prompt": f"held out {n}", "completion": f"yes {n}"} for n in range(4)])
    return tmp_path


@pytest.fixture
def recipe(folder, bloom) -> Callable[..., Path]:
    """Write the recipe, with what is given added to its sections."""

    def write(**sections: Any) -> Path:
        whole: dict[str, Any] = {
            "prompts": "prompts.jsonl",
            "out": "out",
            "collect": {"teacher": "scripted", "concurrency": 2},
            "train": {"student": str(bloom), "epochs": 1, "learning-rate": 1e-3, "save-steps": 3},
        }
        for name, values in sections.items():
            whole[name] = {**whole.get(name, {}), **values} if isinstance(values, dict) else values
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(whole, sort_keys=False))
        return path

    return write


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run `distill run` in this process; gives exit code, standard output and standard error."""
    monkeypatch.setenv("DISTILL_PLUGINS", "")
    monkeypatch.setenv("DISTILL_CACHE", str(folder / "cache"))

    def start(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["--plugin", str(folder / "teacher.py"), "run", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return start
