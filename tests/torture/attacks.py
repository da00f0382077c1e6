"""Kills, races and Ctrl-C at random moments, with real processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults import FEWEST, TEACHER, answers, student_of, write_rows

RUN = "from distill.cli.entry import run; run()"
EARLIEST = 0.15
"""Seconds after which Ctrl-C is tried: before, Python itself is starting."""


@dataclass
class Tally:
    """What was tried, and what came out wrong, a line each."""

    name: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name:32} {self.tried:6} tried, {len(self.wrong)} wrong"


def start(words: list[str], ledger: Path, **more: str) -> subprocess.Popen[str]:
    """Start `distill` in a process group of its own."""
    environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environ |= {"LEDGER": str(ledger), "PAUSE": "0.02", **more}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _inputs(base: Path, count: int) -> list[str]:
    """Prompts and a teacher; gives the words that collect its answers into `out.jsonl`."""
    base.mkdir(exist_ok=True)
    (base / "teacher.py").write_text(TEACHER)
    write_rows(base / "prompts.jsonl", [{"prompt": f"question {n}"} for n in range(count)])
    words = ["--plugin", str(base / "teacher.py"), "collect", str(base / "prompts.jsonl"), "--teacher", "paid"]
    return [*words, "--out", str(base / "out.jsonl"), "--concurrency", "8"]


def kill(base: Path, student: Path, until: float, seed: int) -> Tally:
    """Kill a collection again and again; no row may be lost, and only answers in flight are paid for again."""
    tally, chance, count = Tally("collect: killed"), random.Random(seed), 400
    words, ledger, out = _inputs(base, count), base / "ledger", base / "out.jsonl"
    kills, before = 0, set[str]()
    while tally.tried < FEWEST or time.monotonic() < until:
        process = start(words, ledger)
        try:
            _, said = process.communicate(timeout=chance.uniform(0.5, 3))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            tally.tried += 1
            there = {line for line in out.read_text().split("\n")[:-1] if line} if out.exists() else set[str]()
            if before - there:
                tally.wrong.append(f"{len(before - there)} rows lost by a kill")
            before = there
            continue
        asked = Counter(ledger.read_text().splitlines())
        if process.returncode != 0 or len(answers(out)) != count or len(set(answers(out))) != count:
            tally.wrong.append(f"after {kills} kills: exit code {process.returncode}, {len(answers(out))} rows: {said}")
        if asked.total() - count > 8 * kills:
            tally.wrong.append(f"{asked.total() - count} paid twice by {kills} kills with 8 in flight")
        kills, before = 0, set()
        for path in (ledger, out):
            path.unlink()
    return tally


def race(base: Path, student: Path, until: float, seed: int) -> Tally:
    """Start the same command twice, a random time apart: one does the work, the other one is refused."""
    tally, chance = Tally("two processes at once"), random.Random(seed)
    words, ledger = _inputs(base, 40), base / "ledger"
    write_rows(base / "data.jsonl", [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(8)])
    train = ["train", str(base / "data.jsonl"), "--student", str(student), "--epochs", "2", "--batch-size", "2"]
    clean = None
    while tally.tried < FEWEST or time.monotonic() < until:
        shutil.rmtree(base / "run", ignore_errors=True)
        for path in (ledger, base / "out.jsonl"):
            path.unlink(missing_ok=True)
        is_training = tally.tried % 2
        both, cache = [], str(base / "cache")
        for number in range(2):
            one = [*train, "--out", str(base / "run"), *(["--resume"] * number)] if is_training else words
            both.append(start(one, ledger, DISTILL_CACHE=cache))
            if number == 0:
                time.sleep(chance.choice([0.0, chance.uniform(0, 1), chance.uniform(0, 8 if is_training else 2)]))
        said = [process.communicate()[1] for process in both]
        codes = [process.returncode for process in both]
        tally.tried += 1
        refused = sum(
            code == 1 and "another process is writing" in text for code, text in zip(codes, said, strict=True)
        )
        if codes.count(0) + refused != 2 or not codes.count(0) or "Traceback" in "".join(said):
            tally.wrong.append(f"exit codes {codes}: {said}")
        elif is_training:
            clean = clean or student_of(base / "run")
            if student_of(base / "run") != clean:
                tally.wrong.append(f"the student is another one: exit codes {codes}: {said}")
        elif len(set(answers(base / "out.jsonl"))) != 40 or len(ledger.read_text().splitlines()) != 40:
            tally.wrong.append(f"{len(answers(base / 'out.jsonl'))} rows, {len(ledger.read_text().splitlines())} paid")
    return tally


def interrupt(base: Path, student: Path, until: float, seed: int) -> Tally:
    """Ctrl-C, once or twice, at random moments: never a traceback."""
    tally, chance = Tally("Ctrl-C, once or twice"), random.Random(seed)
    words, ledger = _inputs(base, 200), base / "ledger"
    data = base / "data.jsonl"
    write_rows(data, [{"prompt": f"question {n}", "completion": "answer " * 9} for n in range(1000)])
    model = ["--student", str(student)]
    tried = {
        "--help": (["--help"], 1.0),
        "collect": (words, 3.0),
        "check": (["check", str(data), *model], 6.0),
        "show": (["show", str(data), *model], 6.0),
        "train": (["train", str(data), *model, "--out", str(base / "run"), "--epochs", "1"], 12.0),
    }
    while tally.tried < FEWEST or time.monotonic() < until:
        name = chance.choice(list(tried))
        command, longest = tried[name]
        shutil.rmtree(base / "run", ignore_errors=True)
        (base / "out.jsonl").unlink(missing_ok=True)
        process = start(command, ledger, DISTILL_CACHE=str(base / f"cache-{tally.tried % 2}"))
        after, twice = (
            chance.choice([chance.uniform(EARLIEST, 0.6), chance.uniform(EARLIEST, longest)]),
            chance.random(),
        )
        time.sleep(after)
        for gap in (0.0, *([chance.choice([0.0, 0.001, 0.01, 0.1])] if twice < 0.5 else [])):
            time.sleep(gap)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[1]
        tally.tried += 1
        if "Traceback" in said or process.returncode not in (0, 130, -signal.SIGINT):
            tally.wrong.append(f"{name} after {after:.3f} s, {twice < 0.5}: exit code {process.returncode}: {said}")
    return tally
