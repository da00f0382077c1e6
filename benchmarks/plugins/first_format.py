"""From `distill plugins new` to a student trained in the new format: each command, and how long it took.

    python benchmarks/plugins/first_format.py

Runs them in an environment of its own that sees this checkout and its dependencies, with a tiny random student, so that
what is measured is the tool and not the training. `pip` needs a package index, for setuptools.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMMANDS = """
distill plugins new shout --kind formatter
pip install -q -e distill-shout
distill plugins
distill plugins check shout
pytest -q distill-shout
distill show chats.jsonl --student student --formatter shout -n 1
distill train chats.jsonl --student student --formatter shout --epochs 1 --out run
distill generate run "How do you say \\"dog\\" in Spanish?" --max-tokens 5
""".strip().splitlines()


def main() -> None:
    """Prepare, run, print."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        environ = prepare(work)
        total = 0.0
        for line in COMMANDS:
            words = shlex.split(line)
            if words[0] in ("distill", "pytest", "pip"):
                words = [str(work / "env/bin/python"), "-m", *words]
            began = time.perf_counter()
            done = subprocess.run(words, cwd=work, env=environ, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - began
            total += seconds
            print(f"{seconds:6.1f} s  {line}", flush=True)
            if done.returncode:
                sys.exit(f"{done.stdout}{done.stderr}")
        print(f"{total:6.1f} s  in all")


def prepare(work: Path) -> dict[str, str]:
    """Make the environment, a student and five chats; gives the environment variables."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from article import ARTICLE

    from distill.testing import save_student, tiny_bloom
    from distill.transcripts.rows import message_to_dict
    from distill.types import Message

    venv.create(work / "env", with_pip=True)
    site = next((work / "env/lib").glob("python*/site-packages"))
    (site / "checkout.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    model, tokenizer = tiny_bloom()
    save_student(model, tokenizer, work / "student")
    rows = [{"messages": [message_to_dict(Message(role, text)) for role, text in chat]} for chat in ARTICLE]
    (work / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("DISTILL_")}
    return kept | {"HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    main()
