"""The Dockerfile: built and run where Docker is there, else read as Docker would read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
KEYWORDS = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD", "LABEL", "EXPOSE"}


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_it_keeps_to_good_practice():
    found = instructions()
    words = [keyword for keyword, _ in found]
    assert set(words) <= KEYWORDS and words[0] == "FROM"
    assert all(
        re.fullmatch(r"[\w./-]+:[\w.-]+", image) and not image.endswith(":latest") for k, image in found if k == "FROM"
    )
    # Not root, and no secret in a layer.
    assert words.index("USER") < words.index("ENTRYPOINT") and not any(
        "root" in name for k, name in found if k == "USER"
    )
    assert not any(re.search(r"KEY|TOKEN|SECRET", value) for k, value in found if k in ("ARG", "ENV"))
    for keyword, command in found:
        if keyword == "RUN":
            assert command.count("pip install") == command.count("--no-cache-dir"), command
    # The command line, as a list: a signal reaches distill, which then saves what came.
    assert ("ENTRYPOINT", '["distill"]') in found


def test_what_it_copies_is_there_and_not_ignored():
    kept = {
        line.removeprefix("!").removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {source for keyword, words in instructions() if keyword == "COPY" for source in words.split()[:-1]}
    assert copied == kept and all((ROOT / source).exists() for source in copied)


@pytest.mark.slow
def test_it_is_built_and_runs():
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("Docker is not installed, or does not run")
    subprocess.run(["docker", "build", "-t", "distill-test", str(ROOT)], check=True, timeout=1800)
    done = subprocess.run(
        ["docker", "run", "--rm", "distill-test", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("distill")
