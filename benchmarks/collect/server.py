"""A chat-completions server that costs next to nothing: one asyncio.Protocol, one prebuilt answer, a fixed latency.

    python server.py --latency 0.1 [--bytes 200]

prints its port, then serves until it is killed. `GET /stats` tells how many requests came, and when the first did.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time


class Stats:
    """What came so far; `first` and `last` are times of the system's clock."""

    def __init__(self) -> None:
        self.requests, self.first, self.last = 0, None, None

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


class Connection(asyncio.Protocol):
    """One client. Requests on a connection come one after the other; their length is read, their body is not."""

    def __init__(self, stats: Stats, latency: float, reply: bytes):
        self.stats, self.latency, self.reply = stats, latency, reply
        self.loop = asyncio.get_running_loop()
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
            if self.latency:
                self.loop.call_later(self.latency, self.send)
            else:
                self.send()

    def send(self) -> None:
        """Send the answer."""
        self.transport.write(self.reply)


async def serve(latency: float, size: int) -> None:
    """Serve until killed."""
    stats, reply = Stats(), answer(size)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(stats, latency, reply), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--bytes", type=int, default=200)
    given = parser.parse_args()
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(serve(given.latency, given.bytes))
