"""A chat-completions server that costs next to nothing: one asyncio.Protocol, one prebuilt answer, a fixed latency.

    python server.py --latency 0.1 [--bytes 200] [--slots 64] [--port 8000]

prints its port, then serves until it is killed. `GET /stats` tells how many requests came and were answered, and when
the first came. With `--slots`, no more requests than that are worked on at a time; the others wait their turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque


class Stats:
    """What came so far; `first` and `last` are times of the system's clock."""

    def __init__(self) -> None:
        self.requests, self.answered, self.first, self.last = 0, 0, None, None

    def count(self) -> None:
        """Count a request."""
        self.requests += 1
        self.last = time.time()
        self.first = self.first or self.last


def answer(size: int) -> bytes:
    """A whole response with so many characters of content."""
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "served",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * size}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
        }
    ).encode()
    return response(body)


def response(body: bytes) -> bytes:
    """A 200 with this JSON."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Slots:
    """A server's capacity: each request is worked on for `latency` seconds, at most `count` at a time."""

    def __init__(self, latency: float, count: int):
        self.latency, self.free = latency, count
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[Connection] = deque()

    def take(self, one: Connection) -> None:
        """Work on a request, now or when a slot is free."""
        if not self.latency:
            one.send()
        elif self.free:
            self.free -= 1
            self.loop.call_later(self.latency, self.end, one)
        else:
            self.waiting.append(one)

    def end(self, one: Connection) -> None:
        """Answer, and give the slot to the request that has waited longest."""
        one.send()
        self.free += 1
        if self.waiting:
            self.take(self.waiting.popleft())


class Connection(asyncio.Protocol):
    """One client. Requests on a connection come one after the other; their length is read, their body is not."""

    def __init__(self, stats: Stats, slots: Slots, reply: bytes):
        self.stats, self.slots, self.reply = stats, slots, reply
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self.buffer = self.buffer + data if self.buffer else data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            if head.startswith(b"get /stats"):
                self.transport.write(response(json.dumps(vars(self.stats)).encode()))
                continue
            self.stats.count()
            self.slots.take(self)

    def send(self) -> None:
        """Send the answer, if somebody still waits for it."""
        if not self.transport.is_closing():
            self.stats.answered += 1
            self.transport.write(self.reply)


async def serve(latency: float, size: int, count: int, port: int) -> None:
    """Serve until killed."""
    stats, reply, slots = Stats(), answer(size), Slots(latency, count)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(stats, slots, reply), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--slots", type=int, default=1 << 30)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(serve(given.latency, given.bytes, given.slots, given.port))
