"""Run a recipe to its end, killed again and again on the way: `kill_recipe.py SEED KILLS [--plugin FILE] RECIPE`.

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


def start(words: list[str]) -> tuple[int, int]:
    """Fork a process that runs the recipe; gives its id, and the end of a pipe where its standard error arrives."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from distill.cli.main import main

        os._exit(main([*words[:-1], "run", words[-1]]))
    os.close(write)
    return pid, read


def kill_after(pid: int, pipe: int, line: str, delay: float) -> tuple[bool, str]:
    """Kill the process a while after it has said a line; gives whether it was killed, and all that it said."""
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
        if deadline is None and line.encode() in said:
            deadline = time.monotonic() + delay
    _, status = os.waitpid(pid, 0)
    os.close(pipe)
    return os.WIFSIGNALED(status), said.decode(errors="replace")


def main(seed: int, kills: int, words: list[str], slower: float) -> int:
    """Kill so many starts, and let the last one end; gives its exit code."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers
    import trl  # noqa: F401

    _ = transformers.Trainer
    chance = random.Random(seed)
    for line in sorted((list(LINES) * kills)[:kills], key=list(LINES).index):
        delay = chance.uniform(0.0, LINES[line] * slower)
        killed, said = kill_after(*start(words), line, delay)
        last = [text for text in said.splitlines() if text.strip()][-1:]
        print(json.dumps({"after": line, "delay": round(delay, 3), "killed": killed, "last": last}), flush=True)
    pid, pipe = start(words)
    while more := os.read(pipe, 1 << 16):
        sys.stderr.write(more.decode(errors="replace"))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:], float(os.environ.get("SLOWER", "1"))))
