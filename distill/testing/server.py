"""A real HTTP server that answers chat completions, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Reply:
    """How to answer one request.

    Attributes:
        body: bytes, text, or a value to send as JSON.
        status: the HTTP status.
        headers: further headers.
        delay: seconds before the answer.
        cut: send only this many bytes of the body, then close.
        drip: seconds between the bytes of the body.
        reset: close the connection without an answer.
        hang: send nothing at all until the client gives up.
        raw: send just these bytes, and close.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None
    drip: float = 0.0
    reset: bool = False
    hang: bool = False
    raw: bytes | None = None


@dataclass(frozen=True)
class Asked:
    """A request as it came: its JSON, its headers (lower-case names), its path, and when."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    at: float

    @property
    def text(self) -> str:
        """The last message's text."""
        text: str = self.body["messages"][-1]["content"]
        return text


def completion(content: str | None = "an answer", finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole chat completion; further fields go into its message."""
    message = {"role": "assistant", "content": content, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "served-model",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    }


def echo(asked: Asked) -> Reply:
    """A good answer that repeats the last message."""
    return Reply(completion(f"echo: {asked.text}"))


class FaultyServer:
    """A server on a free port of 127.0.0.1, in a thread. Use it as a context manager.

    Args:
        script: a list of replies, given in turn, after which all is well; or a function from the request to its
            reply (None: all is well).
        delay: seconds before each good answer.
        good: makes the reply when all is well; default: an OpenAI completion that repeats the last message.

    Attributes:
        url: the base URL, ending in /v1.
        origin: the same without the /v1.
        asked: the requests that came, in order.
        most: the most requests that were open at a time.
    """

    def __init__(
        self,
        script: Sequence[Reply] | Callable[[Asked], Reply | None] = (),
        delay: float = 0.0,
        good: Callable[[Asked], Reply] = echo,
    ):
        self._script = script
        self._good = good
        self._delay = delay
        self._given = 0
        self._open = 0
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.asked: list[Asked] = []
        self.most = 0
        self.url = ""
        self.origin = ""

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def texts(self) -> list[str]:
        """The last message of every request, in order."""
        return [asked.text for asked in self.asked]

    def wait_for(self, requests: int, timeout: float = 20) -> None:
        """Wait until this many requests have come."""
        end = time.monotonic() + timeout
        while len(self.asked) < requests:
            assert time.monotonic() < end, f"{len(self.asked)} requests came, not {requests}"
            time.sleep(0.005)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._client, "127.0.0.1", 0, backlog=512))
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.url = f"{self.origin}/v1"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; tells whether the connection stays open."""
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS handshake
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(json.loads(body or b"{}"), headers, head[0].split(" ")[1], time.monotonic())
        with self._lock:
            self.asked.append(asked)
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            return await self._reply(writer, self._choose(asked))
        finally:
            self._open -= 1

    def _choose(self, asked: Asked) -> Reply:
        if callable(self._script):
            reply = self._script(asked)
        else:
            reply = self._script[self._given] if self._given < len(self._script) else None
            self._given += 1
        if reply is not None:
            return reply
        return replace(self._good(asked), delay=self._delay)

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.hang:
            await asyncio.sleep(3600)
        if reply.reset:
            writer.transport.abort()
            return False
        if reply.raw is not None:
            writer.write(reply.raw)
            await writer.drain()
            return False
        body = reply.body if isinstance(reply.body, (bytes, str)) else json.dumps(reply.body)
        body = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
        head = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(head.encode("latin-1") + b"\r\n")
        if reply.drip:
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(reply.drip)
        else:
            writer.write(body if reply.cut is None else body[: reply.cut])
        await writer.drain()
        return reply.cut is None
