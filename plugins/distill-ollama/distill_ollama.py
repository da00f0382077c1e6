"""Ollama's own API as a teacher for distill, with what its OpenAI-compatible one cannot say: `num_ctx`, `think`."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import distill

if TYPE_CHECKING:
    import aiohttp

HOST = "http://127.0.0.1:11434"


@dataclass(frozen=True)
class OllamaOptions:
    """Options of an Ollama teacher.

    Attributes:
        base_url: the server; default: `OLLAMA_HOST`, else this machine's port 11434.
        timeout: seconds for a whole request; loading a model can take minutes.
        num_ctx: tokens of context; default: the server's, which is small.
        think: whether a reasoning model should reason; default: the model decides.
        keep_alive: how long the model stays in memory, such as `30m`.
    """

    base_url: str | None = None
    timeout: float = 600.0
    num_ctx: int | None = field(default=None, metadata={"params": True})
    think: bool | None = field(default=None, metadata={"params": True})
    keep_alive: str | None = None


class Ollama:
    """Asks `POST {base_url}/api/chat`."""

    def __init__(self, options: OllamaOptions, model: str | None):
        if not model:
            raise distill.UsageError(
                "teacher 'ollama' needs a model", "write --teacher ollama:MODEL; see `ollama list`"
            )
        self._options, self._model = options, model
        self._url = server(options.base_url or os.environ.get("OLLAMA_HOST") or HOST) + "/api/chat"
        self._where = re.sub("//[^/@]*@", "//", self._url)  # errors show no user and password
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, request: distill.Request) -> distill.Answer:
        """Ask once; see `distill.Teacher`.

        Raises:
            TeacherError: no answer; its flags tell whether asking again may help.
        """
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._options.timeout)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        try:
            # A redirect would send the prompt to another server.
            async with self._session.post(self._url, json=self._body(request), allow_redirects=False) as response:
                body = await response.read()
        except aiohttp.ClientConnectorError as error:
            what = f"cannot reach {self._where}: {error.os_error.strerror or 'no connection'}"
            raise distill.TeacherError(what, "run `ollama serve`", retryable=True, unreachable=True) from None
        except asyncio.TimeoutError:
            what = f"no whole answer within {self._options.timeout:g} s"
            raise distill.TeacherError(what, "raise --timeout", retryable=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise distill.TeacherError(f"the connection broke: {type(error).__name__}", retryable=True) from None
        payload = _loads(body)
        if response.status != 200:
            raise self._refused(response, payload)
        return _answer(payload)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _body(self, request: distill.Request) -> dict[str, Any]:
        params, options = request.params, self._options
        sampling = {
            "num_predict": params.max_tokens,
            "temperature": params.temperature,
            "seed": params.seed,
            "num_ctx": options.num_ctx,
        }
        body = {
            "model": self._model,
            "messages": _messages(request.messages),
            "tools": list(request.tools) or None,
            "options": {key: value for key, value in sampling.items() if value is not None},
            "think": options.think,
            "keep_alive": options.keep_alive,
            "stream": False,
            "truncate": False,  # else a prompt that is too long loses its beginning, without a word
        }
        return {key: value for key, value in body.items() if value is not None}

    def _refused(self, response: aiohttp.ClientResponse, payload: Mapping[str, Any]) -> distill.TeacherError:
        status, reason = response.status, payload.get("error")
        said = " ".join(reason.split())[:300] if isinstance(reason, str) else ""
        what = f"HTTP {status} from {self._where}" + (f": {said}" if said else "")
        if status == 429 or status >= 500:
            wait = response.headers.get("Retry-After", "")
            return distill.TeacherError(what, retryable=True, retry_after=float(wait) if wait.isdecimal() else None)
        hints = {401: "sign in with `ollama signin`", 404: f"`ollama pull {self._model}`, or check --base-url"}
        return distill.TeacherError(what, hints.get(status), fatal=status in (401, 403, 404) or 300 <= status < 400)


def server(host: str) -> str:
    """The server's URL from what `OLLAMA_HOST` may hold: a URL, `host:port`, a host, or `0.0.0.0` for all of them."""
    scheme, found, rest = host.strip().rstrip("/").rpartition("://")
    if not found:
        name, _, port = rest.partition(":")
        rest = f"{name or '127.0.0.1'}:{port or 11434}"
    return f"{scheme or 'http'}://{rest.replace('0.0.0.0', '127.0.0.1')}"


def _messages(messages: Sequence[distill.Message]) -> list[dict[str, Any]]:
    """Messages as Ollama takes them: a call's arguments are an object there, and a result names the tool."""
    rows, names = [], {}
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        calls = [dict(call.get("function") or {}) for call in message.tool_calls]
        for call, function in zip(message.tool_calls, calls, strict=True):
            names[call.get("id")] = function.get("name")
            if isinstance(function.get("arguments"), str):
                function["arguments"] = _loads(function["arguments"].encode())
        if calls:
            row["tool_calls"] = [{"function": function} for function in calls]
        if message.role == "tool":
            row["tool_name"] = message.name or names.get(message.tool_call_id) or ""
        rows.append(row)
    return rows


def _answer(payload: Mapping[str, Any]) -> distill.Answer:
    message = payload.get("message")
    if not isinstance(message, dict) or not payload.get("done"):
        raise distill.TeacherError("the server sent no whole answer", retryable=True)
    content, thinking = message.get("content"), message.get("thinking")
    calls = [call.get("function") or {} for call in message.get("tool_calls") or [] if isinstance(call, dict)]
    counts = {"prompt_tokens": payload.get("prompt_eval_count"), "completion_tokens": payload.get("eval_count")}
    return distill.Answer(
        distill.Message(
            "assistant",
            content if isinstance(content, str) else None,
            reasoning_content=thinking if isinstance(thinking, str) and thinking else None,
            tool_calls=tuple(_call(n, call) for n, call in enumerate(calls)),
        ),
        finish_reason="tool_calls" if calls else payload.get("done_reason"),
        usage={key: count for key, count in counts.items() if isinstance(count, int)},
        model=payload.get("model"),
    )


def _call(number: int, function: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call in OpenAI's shape, as transcripts hold it."""
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _loads(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty one where there is none."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


@distill.hookimpl
def register_teachers() -> list[distill.TeacherSpec]:
    """Offer `--teacher ollama:MODEL`."""
    return [distill.TeacherSpec("ollama", "a model of an Ollama server: ollama:MODEL", Ollama, OllamaOptions)]
