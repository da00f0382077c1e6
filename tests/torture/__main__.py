"""`make torture`: kills, faults of the disk, races and Ctrl-C at random moments, for as long as one likes.

    python tests/torture --seconds 600 [--seed N]

prints a table: what was tried, and how often a row was lost, paid twice or wrong. The exit code is 0 if all are 0.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attacks import Tally, interrupt, kill, race
from faults import Control, commands, compile_library, sweep

SHARES = {"collect": 0.05, "merge": 0.05, "train": 0.2, "run": 0.2, "kill": 0.15, "race": 0.15, "interrupt": 0.2}
"""The part of the time that each attack has."""


def main() -> int:
    """Run all attacks, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for how long")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is random")
    given = parser.parse_args()
    if "TORTURE" not in os.environ:
        return _start_again()
    base = Path(os.environ["TORTURE"])
    print(f"seed {given.seed}, {given.seconds:g} s\n", flush=True)
    _import_everything()
    from distill.testing import save_student, tiny_bloom

    root, student = base / "root", save_student(*tiny_bloom(), base / "bloom")
    tallies = []
    for command in commands(root, student):
        until = time.monotonic() + given.seconds * SHARES[command.name]
        if "FAULT_CONTROL" not in os.environ:
            print(f"{command.name}: no faults of the disk are tried: that needs Linux and a C compiler", flush=True)
            continue
        outcome = sweep(command, root, Control(Path(os.environ["FAULT_CONTROL"])), until, given.seed)
        tallies.append(Tally(f"{command.name}: a system call fails", outcome.tried, outcome.wrong))
        print(tallies[-1], flush=True)
    for name, attack in (("kill", kill), ("race", race), ("interrupt", interrupt)):
        until = time.monotonic() + given.seconds * SHARES[name]
        tallies.append(attack(base / name, student, until, given.seed))
        print(tallies[-1], flush=True)
    wrong = [line for tally in tallies for line in tally.wrong]
    print(f"\n{sum(tally.tried for tally in tallies)} tried; lost, paid twice or wrong: {len(wrong)}")
    print(*wrong, sep="\n")
    return 1 if wrong or not all(tally.tried for tally in tallies) else 0


def _start_again() -> int:
    """Start this program in a folder of its own, with the library that makes system calls fail."""
    import subprocess

    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        base = Path(folder).resolve()
        environ = {**os.environ, "TORTURE": str(base), "DISTILL_PLUGINS": "", "DISTILL_CACHE": str(base / "root/cache")}
        environ |= {"LEDGER": str(base / "ledger"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environ["TOKENIZERS_PARALLELISM"] = "false"  # a fork would wait for its threads for ever
        library = compile_library(base)
        if library is not None:
            (base / "control").write_bytes(bytes(4096))
            faults = {"FAULT_CONTROL": str(base / "control"), "FAULT_ROOT": f"{base / 'root'}/"}
            environ |= {"LD_PRELOAD": str(library), **faults}
        return subprocess.run([sys.executable, *sys.argv], env=environ, check=False).returncode


def _import_everything() -> None:
    """The commands run in forks: what they need is imported once, and left alone by the garbage collector."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers
    import trl  # noqa: F401

    import distill

    _ = transformers.Trainer
    for module in pkgutil.walk_packages(distill.__path__, "distill."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
