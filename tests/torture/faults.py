"""Fail each system call of a command once, in turn, and run the command again: it must end as if nothing had been.

The commands run in forks of one process that has everything imported, with the library of `failing_calls.c` preloaded.
"""

from __future__ import annotations

import errno
import faulthandler
import hashlib
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("", "write", "fsync", "rename", "open", "mkdir", "link", "truncate", "unlink")
FEWEST = 2
"""How many times each attack is tried, however little time there is."""
ERRNOS = (errno.ENOSPC, errno.EIO)
LONGEST = 120
"""Seconds after which a command hangs: it is ended, and tells where it was."""

TEACHER = '''
import asyncio, hashlib, os, distill


class Paid:
    """Each question is written down before it is answered: it has been paid. Answers may come after a while."""

    async def ask(self, request):
        text = request.messages[-1].content
        ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(ledger, f"{text}\\n".encode())
        os.close(ledger)
        await asyncio.sleep(float(os.environ.get("PAUSE", 0)))
        return distill.Answer(distill.Message("assistant", hashlib.sha256(text.encode()).hexdigest() * 20))


@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("paid", "writes down what it is asked", build=lambda options, model: Paid())]
'''


def compile_library(folder: Path) -> Path | None:
    """Compile the library; None where there is no C compiler, or no LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    made = folder / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, source, "-ldl"], check=True)
    return made


class Control:
    """Says which call fails; shared with all forks."""

    def __init__(self, path: Path):
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 4096)

    def fail(self, number: int, code: int) -> None:
        """Fail call number `number` from now on; 0: none."""
        self._shared[:32] = struct.pack("4q", number, code, 0, 0)

    @property
    def calls(self) -> int:
        """How many there were."""
        return int(struct.unpack("4q", self._shared[:32])[2])

    @property
    def kind(self) -> str:
        """What kind of call failed."""
        return KINDS[struct.unpack("4q", self._shared[:32])[3]]


@dataclass
class Command:
    """A command, its inputs, and what it must have made at the end.

    Attributes:
        name: for the report.
        words: the command line; it is started again with the same.
        prepare: writes the inputs into a folder.
        made: what is compared at the end.
        codes: exit codes of a command that is complete.
    """

    name: str
    words: list[str]
    prepare: Callable[[Path], None]
    made: Callable[[Path], object]
    codes: tuple[int, ...] = (0,)


@dataclass
class Outcome:
    """What came of a sweep.

    Attributes:
        tried: calls that were made to fail.
        noticed: of them, those after which the command ended with an error.
        wrong: what should not be, a line each.
    """

    tried: int = 0
    noticed: int = 0
    wrong: list[str] = field(default_factory=list)


def run(words: list[str], said: Path) -> int:
    """Run `distill` in a fork; its output goes to a file."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            into = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(into, 1)
            os.dup2(into, 2)
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            from distill.cli.main import main

            code = main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sweep(command: Command, root: Path, control: Control, until: float, seed: int = 0) -> Outcome:
    """Fail each call of a command once, as many as there is time for: in turn, or at random where they are too many.

    Args:
        command: what is run.
        root: the folder whose files' calls fail; it is emptied for each call.
        control: of the library.
        until: when to end (`time.monotonic`).
        seed: of the order.
    """
    said, ledger = root.with_name("said.txt"), Path(os.environ["LEDGER"])

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        command.prepare(root)
        ledger.unlink(missing_ok=True)
        control.fail(0, 0)

    fresh()
    if run(command.words, said) not in command.codes:
        return Outcome(wrong=[f"{command.name}: a clean run failed: {said.read_text()}"])
    calls, clean = control.calls, command.made(root)
    order = list(range(1, calls + 1))
    random.Random(seed).shuffle(order)
    outcome = Outcome()
    for number in order:
        if outcome.tried >= FEWEST and time.monotonic() > until:
            break
        fresh()
        code = ERRNOS[number % len(ERRNOS)]
        control.fail(number, code)
        first = run(command.words, said)
        kind, text = control.kind, said.read_text()
        control.fail(0, 0)
        again = run(command.words, said)
        outcome.tried += 1
        outcome.noticed += first not in command.codes
        for problem in _problems(command, root, first, text, again, said.read_text(), clean):
            outcome.wrong.append(f"{command.name}: call {number} of {calls}, {kind} {errno.errorcode[code]}: {problem}")
    return outcome


def _problems(
    command: Command, root: Path, first: int, text: str, again: int, said: str, clean: object
) -> Iterator[str]:
    if "Traceback" in text or first not in (*command.codes, 1, 2):
        yield f"exit code {first}: {text}"
    if first not in command.codes and "Error: " not in text:
        yield f"exit code {first}, and no error: {text}"
    if again not in command.codes:
        yield f"the second start ended with {again}: {said}"
    elif (made := command.made(root)) != clean:
        yield f"it is not the same at the end: {made} != {clean}; {text}"
    ledger = Path(os.environ["LEDGER"])
    asked = ledger.read_text().splitlines() if ledger.exists() else []
    if len(set(asked)) < len(asked):
        yield f"{len(asked) - len(set(asked))} paid twice: {text}"


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answers(path: Path) -> list[tuple[str, str]]:
    """The questions and answers of a file of transcripts, in order of the questions."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted((row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows)


def commands(root: Path, student: Path) -> list[Command]:
    """Collect, train, merge and a recipe."""
    plugin = root.with_name("teacher.py")
    plugin.write_text(TEACHER)
    teacher = ["--plugin", str(plugin)]

    def prompts(folder: Path) -> None:
        write_rows(folder / "prompts.jsonl", [{"prompt": f"question {n}"} for n in range(6)])

    def data(folder: Path) -> None:
        rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(4)]
        write_rows(folder / "data.jsonl", rows)

    def shards(folder: Path) -> None:
        for shard in range(2):
            rows: list[dict[str, object]] = []
            for n in range(shard, 6, 2):
                chat = [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]
                rows.append({"id": f"{n}", "messages": chat})
            write_rows(folder / f"shard-{shard}.jsonl", rows)

    def recipe(folder: Path) -> None:
        prompts(folder)
        train = f"train: {{student: {student}, epochs: 1, batch-size: 4, save-steps: 1}}\n"
        (folder / "recipe.yaml").write_text(f"prompts: prompts.jsonl\ncollect: {{teacher: paid}}\n{train}out: made\n")

    train = ["train", str(root / "data.jsonl"), "--student", str(student), "--out", str(root / "run"), "--resume"]
    small = ["--epochs", "1", "--batch-size", "2", "--save-steps", "1"]
    collect = ["collect", str(root / "prompts.jsonl"), "--teacher", "paid", "--out", str(root / "out.jsonl")]
    merge = ["merge", str(root / "all.jsonl"), str(root / "shard-0.jsonl"), str(root / "shard-1.jsonl")]
    return [
        Command("collect", [*teacher, *collect], prompts, lambda made: answers(made / "out.jsonl")),
        Command("merge", merge, shards, lambda made: answers(made / "all.jsonl")),
        Command("train", [*train, *small], data, lambda made: student_of(made / "run")),
        Command(
            "run",
            [*teacher, "run", str(root / "recipe.yaml")],
            recipe,
            lambda made: (answers(made / "made" / "transcripts.jsonl"), student_of(made / "made" / "run")),
        ),
    ]


def student_of(run: Path) -> tuple[object, ...]:
    """A student's weights, its losses, and that the run folder is finished."""
    weights = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    state = json.loads((run / "run.json").read_text())["state"]
    return weights, [(row["step"], row["loss"]) for row in losses], state
