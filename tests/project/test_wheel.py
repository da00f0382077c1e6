"""The wheel: it holds all the package needs, and works away from the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_packages import distill, pip_install

ROOT = Path(__file__).parents[2]
SCAFFOLD = [f.relative_to(ROOT / "distill").as_posix() for f in (ROOT / "distill/scaffold").rglob("*-tpl")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """distill itself, installed from its wheel into a folder of its own."""
    target = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "distill"
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    words += ["distill", "pyproject.toml", "README.md"]
    files = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for file in filter(None, files):
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())
    pip_install(target, source)
    return target


def test_the_wheel_is_whole(installed):
    for file in (
        "builtin/formatters/chatml.jinja",
        "recipes/quickstart/quickstart.yaml",
        "recipes/quickstart/prompts.jsonl",
        "recipes/quickstart/held-out.jsonl",
        "pages/templates/show.html.jinja",
        "pages/templates/report.html.jinja",
        "py.typed",
        "cli/main.py",
        *SCAFFOLD,
    ):
        assert (installed / "distill" / file).is_file(), file
    assert not (installed / "tests").exists()
    info = next(installed.glob("distill_chat-*.dist-info"))
    assert "distill = distill.cli.entry:run" in (info / "entry_points.txt").read_text()


def test_the_installed_tool_works(installed, bloom, article):
    probe = "import distill; print(distill.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", probe],
        env={"PYTHONPATH": str(installed)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(installed))
    shown = distill("show", article, "--student", bloom, "--json", "-n", "1", path=[installed], cwd=installed)
    assert json.loads(shown.stdout)["tokens"][0] == "<|im_start|>"
