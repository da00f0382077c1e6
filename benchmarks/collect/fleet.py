"""Several servers and several shards, measured: `python benchmarks/collect/fleet.py PART…` prints README.md's figures.

servers   four servers, one at half speed: wall time against the ideal
outage    the same, one of them killed in the middle and back after 30 seconds
rate      rows per second and CPU per row through one process, with one server and with four
profile   what the CPU time of a row is made of
kills     random kill -9 of shards, while their number changes from 4 to 7 to 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from run import HERE, WORK, environment, fresh, measure, prompts, stats

IN_FLIGHT = 256
SLOTS = IN_FLIGHT // 4
LIFE = 5.0
"""Seconds that a shard lives on average before it is killed; it starts in one or two."""


@dataclass
class Server:
    """A cheap server with a capacity; it can be killed, and started again on its port."""

    latency: float
    slots: int = 1 << 30
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def rate(self) -> float:
        """Answers per second at most."""
        return self.slots / self.latency

    def start(self) -> None:
        """Start it, on the port it had."""
        words = [sys.executable, HERE / "server.py", "--latency", self.latency, "--slots", self.slots]
        words += ["--port", self.port]
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """Kill it, with all that it works on."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(servers: Sequence[Server]) -> Iterator[list[Server]]:
    """Servers, until the end of the block."""
    with ExitStack() as stack:
        for server in servers:
            server.start()
            stack.callback(server.kill)
        yield list(servers)


def ours(path: Path, servers: Sequence[Server], out: Path, concurrency: int, *more: str) -> list[str]:
    """Our command."""
    urls = [word for server in servers for word in ("--base-url", server.url)]
    words = [sys.executable, "-m", "distill", "collect", path, "--teacher", "openai:m", *urls, "--out", out]
    return [str(word) for word in (*words, "--concurrency", concurrency, "--retries", 0, *more)]


def four(latency: float) -> list[Server]:
    """Four servers with 64 slots each; one needs twice the time."""
    return [Server(latency, SLOTS), Server(latency, SLOTS), Server(latency, SLOTS), Server(2 * latency, SLOTS)]


def servers(count: int, latency: float) -> None:
    """How near to the four servers' capacity a collection comes."""
    out, path = fresh(), prompts(count)
    with running(four(latency)) as those:
        ideal = count / sum(server.rate for server in those)
        run = measure(ours(path, those, out, IN_FLIGHT), those[0].url, out, count)
        shares = ", ".join(f"{stats(server.url)['answered']:,}" for server in those)
    print(
        f"\n{count:,} prompts, {IN_FLIGHT} in flight, four servers of {SLOTS} slots at {latency:g} s, one at "
        f"{2 * latency:g} s: "
        f"{run.wall:.1f} s, {run.wall / ideal:.2f} × ideal ({ideal:.1f} s); {run.rows:,} rows, exit code {run.code}; "
        f"answered: {shares}",
        flush=True,
    )


def outage(count: int, latency: float, away: float = 30.0) -> None:
    """One server is killed with what it works on, and comes back."""
    out, path = fresh(), prompts(count)
    with running(four(latency)) as those:
        ideal = count / sum(server.rate for server in those)
        before: list[dict] = []

        def strike() -> None:
            before.append(stats(those[0].url))
            those[0].kill()
            time.sleep(away)
            those[0].start()

        timer = threading.Timer(ideal / 3, strike)
        timer.start()
        run = measure(ours(path, those, out, IN_FLIGHT), those[1].url, out, count)
        timer.join()
        seen = [stats(server.url) for server in those]
    ids = Counter(json.loads(line)["id"] for line in out.read_bytes().splitlines())
    answered = before[0]["answered"] + sum(one["answered"] for one in seen)
    lost = away * those[0].rate / sum(server.rate for server in those)
    print(
        f"\nOne of the four killed after {ideal / 3:.0f} s and back {away:.0f} s later: {run.wall:.1f} s, "
        f"{run.wall / ideal:.2f} × ideal, {run.wall / (ideal + lost):.2f} × ideal with the capacity that was there; "
        f"exit code {run.code}, {count - len(ids)} lost, {sum(ids.values()) - len(ids)} twice, {answered - count} "
        f"answers paid twice; after its return it answered {seen[0]['answered']:,}",
        flush=True,
    )


def rate(count: int, rounds: int) -> None:
    """Rows per second through one process, by turns with one server and with four; no latency, so CPU is the limit."""
    found: dict[int, list[tuple[float, float]]] = {1: [], 4: []}
    path, few = prompts(count), prompts(100)
    start = []
    for _ in range(rounds):
        for number in found:
            with running([Server(0.02) for _ in range(number)]) as those:
                out = fresh()
                base = measure(ours(few, those, out, IN_FLIGHT), those[0].url, out, 100)
                start.append(base.cpu * 100 / 1000)
                out = fresh()
                run = measure(ours(path, those, out, IN_FLIGHT), those[0].url, out, count)
            cpu = (run.cpu * count - base.cpu * 100) / (count - 100)
            found[number].append(((count - 100) / (run.wall - base.wall), cpu))
    print(f"\n{count:,} prompts, {IN_FLIGHT} in flight, {rounds} rounds by turns; medians, without Python's start "
          f"({statistics.median(start):.2f} s of CPU):\n")  # fmt: skip
    print("| servers | rows/s | CPU ms per row |\n|---|---|---|")
    for number, runs in found.items():
        speeds, cpus = zip(*runs, strict=True)
        spread = f"{min(cpus):.3f} to {max(cpus):.3f}"
        print(f"| {number} | {statistics.median(speeds):,.0f} | {statistics.median(cpus):.3f} ({spread}) |", flush=True)


PROFILED = """import cProfile, pstats, sys, time
from distill.cli.main import main
profile = cProfile.Profile(time.process_time)
profile.runcall(main, sys.argv[1:])
parts, total = {}, 0.0
for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():
    folders = ("/aiohttp/", "/asyncio/", "/json/", "/collection/", "/builtin/teachers/", "/distill/")
    part = next((folder for folder in folders if folder in file), "built-in functions" if file == "~" else "others")
    parts[part], total = parts.get(part, 0.0) + own, total + own
for part, own in sorted(parts.items(), key=lambda pair: -pair[1]):
    print(f"{own / total:6.1%}  {part.strip('/')}")
pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
"""


def profile(count: int) -> None:
    """Which parts of the code one collection spends its time in; cProfile counts calls of small functions too high."""
    out = fresh()
    with running([Server(0.02) for _ in range(4)]) as those:
        words = ours(prompts(count), those, out, IN_FLIGHT)
        subprocess.run([sys.executable, "-c", PROFILED, *words[3:]], env=environment(), check=True)


class Killing:
    """Shards of one collection that are killed at random moments and started again.

    Args:
        path: the prompts.
        server: answers them.
        concurrency: requests in flight per shard.
        seed: of the moments.
    """

    def __init__(self, path: Path, server: Server, concurrency: int, seed: int = 0):
        self.path, self.server, self.concurrency = path, server, concurrency
        self.draw = random.Random(seed)
        self.kills = 0
        self.refused = 0
        self.out = WORK / "kills" / "out.jsonl"

    def start(self, index: int, count: int) -> subprocess.Popen[bytes]:
        """Start one shard."""
        words = ours(
            self.path, [self.server], self.out, self.concurrency, "--shard", f"{index}/{count}", "--patience", "0"
        )
        return subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def phase(self, count: int, kills: int) -> None:
        """Kill a shard of `count` again and again; at the end, all of them."""
        shards = [self.start(index, count) for index in range(count)]
        goal = self.kills + kills
        while self.kills < goal - count:
            time.sleep(self.draw.uniform(0, 2 * LIFE / count))
            index = self.draw.randrange(count)
            if shards[index].poll() is None:
                self.kill(shards[index])
                shards[index] = self.start(index, count)
            else:
                self.refused += shards[index].returncode != 0
                shards[index] = self.start(index, count)
        for one in shards:
            if one.poll() is None:
                self.kill(one)

    def kill(self, one: subprocess.Popen[bytes]) -> None:
        """kill -9, wherever it is: at its start, while it reads, asks or writes."""
        one.kill()
        one.wait()
        self.kills += one.returncode == -9

    def finish(self, count: int) -> list[int]:
        """Let `count` shards come to their end; gives their exit codes."""
        return [one.wait() for one in [self.start(index, count) for index in range(count)]]


def kills(times: int, count: int, concurrency: int = 8) -> None:
    """Random kill -9 over 4, then 7, then 2 shards of one collection."""
    (WORK / "kills").mkdir(exist_ok=True)
    for old in (WORK / "kills").glob("*"):
        old.unlink()
    for old in (WORK / "kills").glob(".*"):
        old.unlink()
    path = prompts(count)
    with running([Server(0.5)]) as (server,):
        run = Killing(path, server, concurrency)
        for number, part in ((4, times // 3), (7, times // 3), (2, times - 2 * (times // 3))):
            run.phase(number, part)
            print(f"{run.kills} kills, {stats(server.url)['requests']} requests", file=sys.stderr, flush=True)
        codes = run.finish(2)
        asked = stats(server.url)["requests"]
    ids: Counter[str] = Counter()
    broken = 0
    for file in sorted((WORK / "kills").glob("out.shard-*.jsonl")):
        for line in file.read_bytes().split(b"\n")[:-1]:
            try:
                ids[json.loads(line)["id"]] += 1
            except ValueError:
                broken += 1
    print(
        f"\n{run.kills} kill -9 over 4, 7 and 2 shards of {count:,} prompts, {concurrency} in flight per shard: "
        f"{count - len(ids)} lost, {sum(ids.values()) - len(ids)} twice, {broken} unparsable, {asked - count} requests "
        f"repeated (allowed: {run.kills * concurrency}), exit codes {codes}, {run.refused} starts ended by themselves",
        flush=True,
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["servers", "outage", "rate", "profile", "kills"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds per answer of the quick servers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=300)
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    parts = {
        "servers": lambda: servers(given.rows, given.latency),
        "outage": lambda: outage(given.rows, given.latency),
        "rate": lambda: rate(given.rows, given.rounds),
        "profile": lambda: profile(given.rows),
        "kills": lambda: kills(given.kills, given.rows),
    }
    for part in given.parts:
        parts[part]()


if __name__ == "__main__":
    main()
