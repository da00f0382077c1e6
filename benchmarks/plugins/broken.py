"""What many broken plugins cost: start-up time and lines on standard error, with and without them, alternating.

    python benchmarks/plugins/broken.py

Every kind of broken plugin of the tests is pip-installed into one folder (the one that sleeps is left out: its sleep is
its own). Prints, for each command, the median of many runs with none and with all of them, and what each one adds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/support"))

from broken_plugins import BROKEN, RUDE, write_wheels
from plugin_packages import distill, pip_install

COMMANDS = (["--help"], ["plugins"], ["collect", "--help"], ["train", "--help"])


def main() -> None:
    """Install, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        site, empty = Path(scratch) / "site", Path(scratch) / "empty"
        empty.mkdir()
        packages = write_wheels(Path(scratch), without=("sleeps",))
        pip_install(site, *packages)
        print(f"{len(packages)} packages: {len(BROKEN)} are not loaded, {len(RUDE) - 1} are and misbehave")
        print(f"{'command':20} {'none':>9} {'all':>9} {'more':>9}   lines of standard error")
        for words in COMMANDS:
            without, with_all, lines = measure(words, empty, site, runs)
            more = with_all - without
            print(f"{' '.join(words):20} {without:6.1f} ms {with_all:6.1f} ms {more:6.1f} ms   {lines}")


def measure(words: list[str], empty: Path, site: Path, runs: int) -> tuple[float, float, int]:
    """Median milliseconds without and with the plugins, and how many lines of standard error they cause."""
    times: dict[Path, list[float]] = {empty: [], site: []}
    lines = 0
    for _ in range(runs):
        for path in times:
            began = time.perf_counter()
            done = distill(*words, path=[path])
            times[path].append((time.perf_counter() - began) * 1000)
            assert done.returncode == 0, done.stderr
            if path is site:
                lines = len(done.stderr.splitlines())
    return statistics.median(times[empty]), statistics.median(times[site]), lines


if __name__ == "__main__":
    main()
