"""Run a recipe, and one killed again and again on the way: `kill_recipe.py SEED KILLS CLEAN KILLED [--plugin FILE]`.

The libraries are imported once; each start of the recipe is a fork, and a real SIGKILL ends it, a random time after it
has said one of its lines. The lines take turns, so that kills are spread over the steps. `SLOWER=10` stretches the
times, for a larger student. Prints what happened, a JSON object a start.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time

# What a recipe says, in its order, and the seconds after it in which it is killed.
LINES = {"collect:": 0.3, "check:": 0.4, "train:": 1.5, "saving the student": 0.15, "compare:": 0.3}


def start(recipe: str, plugin: list[str]) -> tuple[int, int]:
    """Fork a process that runs the recipe; gives its id, and the end of a pipe where its standard error arrives."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from distill.cli.main import main

        os._exit(main([*plugin, "run", recipe]))
    os.close(write)
    return pid, read


def kill_after(pid: int, pipe: int, lines: list[str], delay: float) -> tuple[bool, str]:
    """Kill the process a while after it has said one of the lines; gives whether it was, and all that it said."""
    said, deadline = b"", None
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([pipe], [], [], wait)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        more = os.read(pipe, 1 << 16)
        if not more:
            break
        said += more
        if deadline is None and any(line.encode() in said for line in lines):
            deadline = time.monotonic() + delay
    _, status = os.waitpid(pid, 0)
    os.close(pipe)
    return os.WIFSIGNALED(status), said.decode(errors="replace")


def finish(pid: int, pipe: int) -> int:
    """Let a start come to its end; gives its exit code."""
    while more := os.read(pipe, 1 << 16):
        sys.stderr.write(more.decode(errors="replace"))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(seed: int, kills: int, clean: str, killed: str, plugin: list[str], slower: float) -> int:
    """Run both; gives the exit code of the recipe that was killed, or 9 where the other's is not the same."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers
    import trl  # noqa: F401

    _ = transformers.Trainer
    code = finish(*start(clean, plugin))
    chance, names = random.Random(seed), list(LINES)
    for line in sorted((names * kills)[:kills], key=names.index):
        delay = chance.uniform(0.0, LINES[line] * slower)
        dead, said = kill_after(*start(killed, plugin), names[names.index(line) :], delay)
        last = [text for text in said.splitlines() if text.strip()][-1:]
        print(json.dumps({"after": line, "delay": round(delay, 3), "killed": dead, "last": last}), flush=True)
    return code if finish(*start(killed, plugin)) == code else 9


if __name__ == "__main__":
    SLOWER = float(os.environ.get("SLOWER", "1"))
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:], SLOWER))
