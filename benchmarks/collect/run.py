"""Collecting, measured: `python benchmarks/collect/run.py` prints the tables of README.md.

Peers are installed into environments of their own under `build/bench/`; the server runs in a process of its own.
`--rows`, `--only` and `--peers` make it smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "bench"
LATENCY = 0.1

PEERS = {
    "bare aiohttp": ("bare_aiohttp.py", ["aiohttp"]),
    "AsyncOpenAI": ("async_openai.py", ["openai"]),
    "LiteLLM": ("litellm_batch.py", ["litellm"]),
    "bare httpx": ("bare_httpx.py", ["httpx"]),
}


@dataclass(frozen=True)
class Run:
    """What one command did: seconds, CPU milliseconds a request, MiB at most, and what the server saw."""

    wall: float
    cpu: float
    first: float
    memory: float
    requests: int
    rows: int
    code: int


@contextmanager
def server(latency: float = LATENCY, size: int = 200) -> Iterator[str]:
    """The cheap server; gives its base URL."""
    words = [sys.executable, HERE / "server.py", "--latency", str(latency), "--bytes", str(size)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict:
    """What the server saw."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as response:
        return json.load(response)


def prompts(count: int) -> Path:
    """A prompt file of so many lines."""
    path = WORK / f"prompts-{count}.txt"
    path.write_text("".join(f"prompt number {n}: write a short poem about it\n" for n in range(count)))
    return path


def ours(path: Path, url: str, out: Path, concurrency: int, *more: str) -> list[str]:
    """Our command."""
    words = [sys.executable, "-m", "distill", "collect", path, "--teacher", "openai:m", "--base-url", url]
    return [*map(str, words), "--out", str(out), "--concurrency", str(concurrency), *more]


def theirs(name: str, path: Path, url: str, out: Path, concurrency: int) -> list[str]:
    """A peer's command; its environment is made when it is first needed."""
    script, packages = PEERS[name]
    python = WORK / script.removesuffix(".py") / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return [str(python), str(HERE / "peers" / script), str(path), url, str(out), str(concurrency)]


def fresh(name: str = "out.jsonl") -> Path:
    """A file that does not exist, nor those beside it."""
    for old in WORK.glob(name + "*"):
        old.unlink()
    return WORK / name


def measure(words: Sequence[str], url: str, out: Path, count: int) -> Run:
    """Run a command to its end."""
    began = time.time()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    wall, seen = time.time() - began, stats(url)
    return Run(
        wall,
        (usage.ru_utime + usage.ru_stime) / count * 1000,
        (seen["first"] or began) - began,
        usage.ru_maxrss / 1024,
        seen["requests"],
        rows(out),
        os.waitstatus_to_exitcode(status),
    )


def environment() -> dict[str, str]:
    """Ours: this checkout and its own plugins, whatever is installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "DISTILL_PLUGINS": ""}


def rows(out: Path) -> int:
    """Lines of a file; 0 where there is none."""
    return out.read_bytes().count(b"\n") if out.exists() else 0


def speed(count: int, names: Sequence[str]) -> None:
    """Wall, CPU and memory at two concurrencies, next to the peers."""
    print(f"\n{count:,} prompts, latency {LATENCY * 1000:.0f} ms. Wall ÷ (prompts × latency ÷ concurrency):\n")
    print("| | concurrency | wall | ÷ ideal | CPU ms a request | first request s | peak MiB | rows |")
    print("|---|---|---|---|---|---|---|---|")
    path = prompts(count)
    for concurrency in (64, 256):
        for name in ("distill", *names):
            out = fresh()
            with server() as url:
                if name == "distill":
                    words = ours(path, url, out, concurrency)
                else:
                    words = theirs(name, path, url, out, concurrency)
                run = measure(words, url, out, count)
            ratio = run.wall / (count * LATENCY / concurrency)
            cells = [name, concurrency, f"{run.wall:.1f} s", f"{ratio:.2f}", f"{run.cpu:.2f}", f"{run.first:.2f}"]
            print("| " + " | ".join(map(str, [*cells, f"{run.memory:.0f}", run.rows])) + " |", flush=True)


def memory(few: int, many: int) -> None:
    """Peak memory must not grow with the number of prompts."""
    peaks = []
    for count in (few, many):
        out = fresh()
        with server(0.0) as url:
            peaks.append(measure(ours(prompts(count), url, out, 64), url, out, count).memory)
    growth = f"{peaks[1] / peaks[0]:.2f} ×"
    print(
        f"\nPeak memory: {peaks[0]:.0f} MiB with {few:,} prompts, {peaks[1]:.0f} MiB with {many:,}: {growth}",
        flush=True,
    )


def added(count: int = 200, more: int = 10) -> None:
    """Prompts added to a finished run cost their own requests only."""
    out = fresh()
    with server(0.0) as url:
        measure(ours(prompts(count), url, out, 16), url, out, count)
        run = measure(ours(prompts(count + more), url, out, 16), url, out, count)
    print(f"\n{more} prompts added to a finished run of {count}: {run.requests - count} requests", flush=True)


def kills(times: int, concurrency: int = 32) -> None:
    """kill -9 at random moments, over answers of 20 KB."""
    out, path, count = fresh(), prompts(times * 200), times * 200
    draw = random.Random(0)
    with server(0.02, 20_000) as url:
        for _ in range(times):
            before = stats(url)["requests"]
            process = subprocess.Popen(ours(path, url, out, concurrency), stderr=subprocess.DEVNULL, env=environment())
            goal = before + draw.randrange(1, 200)
            while stats(url)["requests"] < goal and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.random() * 0.02)
            process.kill()
            process.wait()
        last = measure(ours(path, url, out, concurrency), url, out, count)
    ids, broken = [], 0
    for line in out.read_bytes().splitlines():
        try:
            ids.append(json.loads(line)["id"])
        except ValueError:
            broken += 1
    print(
        f"\n{times} random kill -9, {concurrency} in flight, 20 KB answers: {count - len(set(ids))} lost, "
        f"{len(ids) - len(set(ids))} duplicated, {broken} unparsable, {last.requests - count} requests repeated "
        f"(allowed: {times * concurrency}), exit code {last.code}",
        flush=True,
    )


FAULTS = """import sys
from distill.testing import FaultyServer, Reply, completion
good = completion("fine")
faults = [
    Reply("", 429, {"Retry-After": "1"}), Reply("oops", 500), Reply("<html>", 502, {"Content-Type": "text/html"}),
    Reply("", 503), Reply(reset=True), Reply(raw=b""), Reply(raw=b"hello\\r\\n\\r\\n"), Reply(good, cut=40), Reply(b""),
    Reply(raw=b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n{"), Reply(hang=True), Reply(good, drip=0.5),
    Reply(b'{"choices": [}'), Reply(b'{"choices": "\\xff"}'), Reply({"error": {"message": "upstream"}}),
    Reply({"choices": None}), Reply({"choices": []}), Reply({"id": "x"}),
    Reply(raw=b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\n{\\"cho\\r\\n"),
    Reply(b"x", headers={"Content-Encoding": "gzip"}),
]
left = {f"{50 * n}:": fault for n, fault in enumerate(faults)}
with FaultyServer(lambda asked: left.pop(asked.text.split()[2], None)) as server:
    print(server.url, len(faults), flush=True)
    sys.stdin.read()
    print(len(server.asked))
"""


def faults(names: Sequence[str]) -> None:
    """1,000 prompts, each fault of a server once; a timeout of 5 s where the tool has one."""
    print("\n1,000 prompts, every fault of a server once:\n\n| | good rows | requests | seconds |\n|---|---|---|---|")
    for name in ("distill", *names):
        out, path = fresh(), prompts(1000)
        words = [sys.executable, "-c", FAULTS]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        url, _ = process.stdout.readline().split()
        words = ours(path, url, out, 64, "--timeout", "5") if name == "distill" else theirs(name, path, url, out, 64)
        began = time.time()
        try:
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), timeout=120)
            took = f"{time.time() - began:.1f}"
        except subprocess.TimeoutExpired:
            took = "never ended (120)"
        asked = process.communicate("")[0].strip()
        print(f"| {name} | {rows(out)} | {asked} | {took} |", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="prompts of the speed table")
    parser.add_argument("--many", type=int, default=200_000, help="prompts of the memory measurement")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas; empty: none")
    parser.add_argument("--only", default="speed,memory,added,kills,faults", help="parts, separated by commas")
    given = parser.parse_args()
    names = [name for name in given.peers.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"unknown peer {unknown[0]!r}; known: {', '.join(PEERS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    parts = {
        "speed": lambda: speed(given.rows, names),
        "memory": lambda: memory(2000, given.many),
        "added": added,
        "kills": lambda: kills(given.kills),
        "faults": lambda: faults(names),
    }
    for part in given.only.split(","):
        parts[part]()


if __name__ == "__main__":
    main()
