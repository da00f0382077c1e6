"""Any server that speaks OpenAI's chat completions, asked with care: every fault has its own clear end."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import distill
from distill import Answer, Message, Request, TeacherError, UsageError, clean_surrogates, message_to_dict

if TYPE_CHECKING:
    import aiohttp

DEFAULT_BASE_URL = "https://api.openai.com/v1"
LONGEST_WAIT = 60.0
"""Seconds that a server's Retry-After is obeyed for, at most."""
LARGEST_BODY = 64 << 20
"""Bytes of one response; a server that sends more has lost its way."""
SECRET_LENGTH = 16
"""Keys from this length on are blotted out of what servers send; shorter ones are dummies such as `EMPTY`."""


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Options of an OpenAI-compatible teacher.

    Attributes:
        base_url: where `/chat/completions` is; default: `OPENAI_BASE_URL`, else OpenAI's own.
        api_key_env: the environment variable that holds the key; servers that need none may leave it unset.
        timeout: seconds for a whole request, its answer included.
        max_tokens_field: what the server calls the token limit; default: `max_completion_tokens` on api.openai.com,
            `max_tokens` elsewhere.
        body: further fields of the request, as JSON; they count as parameters.
    """

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    body: dict[str, Any] = field(default_factory=dict, metadata={"params": True})

    def __post_init__(self) -> None:
        if not self.timeout > 0 or math.isinf(self.timeout):
            raise ValueError("timeout must be a number of seconds above 0")


class OpenAITeacher:
    """Asks `POST {base_url}/chat/completions`, over one session a run.

    Args:
        options: how to reach the server.
        model: its name there.

    Raises:
        UsageError: no model, no key where one is needed, or a malformed URL or key.
    """

    def __init__(self, options: OpenAIOptions, model: str | None):
        if not model:
            raise UsageError("teacher 'openai' needs a model", "write --teacher openai:MODEL")
        base = (options.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).strip()
        self._model, self._options = model, options
        self._url = _endpoint(base)
        self._where = _shown(self._url)
        self._key = _read_key(options.api_key_env, self._url)
        official = urlsplit(self._url).hostname == "api.openai.com"
        self._max_tokens = options.max_tokens_field or ("max_completion_tokens" if official else "max_tokens")
        self._proxy = _proxy(self._url)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, request: Request) -> Answer:
        """Ask once.

        Raises:
            TeacherError: no answer; says whether asking again may help.
        """
        import aiohttp

        try:
            response, body = await self._post(json.dumps(self._body(request)).encode())
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._no_answer(error) from None
        if response.status != 200:
            raise self._refused(response, body)
        return self._answer(self._parse(response, body))

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, data: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        import aiohttp

        if self._session is None:
            headers = {"Content-Type": "application/json", "User-Agent": f"distill/{distill.__version__}"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0),  # the collector limits what is in flight
                timeout=aiohttp.ClientTimeout(total=self._options.timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no ~/.netrc in place of the key
            )
        # A redirect would turn the POST into a GET, or carry the key to another host.
        async with self._session.post(self._url, data=data, allow_redirects=False, proxy=self._proxy) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise TeacherError(f"{self._where} sent more than {LARGEST_BODY >> 20} MiB in one answer")
            return response, bytes(body)

    def _body(self, request: Request) -> dict[str, Any]:
        params = request.params
        body: dict[str, Any] = {"model": self._model, "messages": [_message(one) for one in request.messages]}
        if request.tools:
            body["tools"] = [dict(tool) for tool in request.tools]
        if params.max_tokens is not None:
            body[self._max_tokens] = params.max_tokens
        if params.temperature is not None:
            body["temperature"] = params.temperature
        if params.seed is not None:
            body["seed"] = params.seed
        return body | self._options.body

    def _no_answer(self, error: Exception) -> TeacherError:
        """The error for a request that brought no whole response."""
        import aiohttp

        where = self._where
        if isinstance(error, aiohttp.InvalidURL):
            return TeacherError(f"{where} is not a URL", "check --base-url", fatal=True)
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)):
            hint = "check --base-url: http or https, and the server's certificate"
            return TeacherError(f"no secure connection to {where}: {self._clean(str(error))}", hint, fatal=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
            reason = os.strerror(cause.errno) if (cause.errno or 0) > 0 else cause.strerror or type(cause).__name__
            hint = "is the server running? check --base-url"
            return TeacherError(f"cannot reach {where}: {reason}", hint, retryable=True, unreachable=True)
        if isinstance(error, asyncio.TimeoutError):
            what = f"no whole answer from {where} within {self._options.timeout:g} s"
            return TeacherError(what, "raise --timeout", retryable=True)
        return TeacherError(f"the connection to {where} broke: {type(error).__name__}", retryable=True)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> TeacherError:
        """The error for a status other than 200."""
        status = response.status
        if 300 <= status < 400:
            to = _shown(self._clean(response.headers.get("Location", "nowhere")))
            return TeacherError(f"{self._where} redirects to {to}", "give the right address as --base-url", fatal=True)
        payload = self._loads(body)
        reason, code = _error_text(payload) or self._text(body), _error_code(payload)
        what = f"HTTP {status} from {self._where}: {reason}" if reason else f"HTTP {status} from {self._where}"
        if status == 429 and code != "insufficient_quota":
            wait = _retry_after(response.headers.get("Retry-After"))
            return TeacherError(what, "lower --concurrency", retryable=True, retry_after=wait)
        if status >= 500 or status in (408, 409, 425):
            wait = _retry_after(response.headers.get("Retry-After"))
            return TeacherError(what, retryable=True, retry_after=wait)
        hint = {
            401: f"check the key in {self._options.api_key_env}",
            402: "the account needs money",
            403: f"check what the key in {self._options.api_key_env} may do",
            404: f"check the model {self._model!r} and --base-url, which usually ends in /v1",
            429: "the account's quota is used up",
        }.get(status)
        return TeacherError(what, hint, fatal=hint is not None)

    def _parse(self, response: aiohttp.ClientResponse, body: bytes) -> Mapping[str, Any]:
        """The JSON object of a 200 response."""
        payload = self._loads(body)
        if isinstance(payload, dict):
            if payload.get("error"):  # gateways report the failures of the servers behind them so
                raise TeacherError(f"error from {self._where}: {_error_text(payload) or 'unknown'}", retryable=True)
            return payload
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "text/event-stream") or body.lstrip()[:1] == b"<":
            what = "an event stream" if kind == "text/event-stream" else "a web page"
            raise TeacherError(
                f"{self._where} answered with {what}, not with JSON",
                "check --base-url, which usually ends in /v1",
                fatal=True,
            )
        start = self._text(body)
        what = f"broken JSON: {start}" if start else "nothing"
        raise TeacherError(f"{self._where} answered with {what}", retryable=True)

    def _answer(self, payload: Mapping[str, Any]) -> Answer:
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise TeacherError(f"{self._where} sent no choice", retryable=True)
        content, calls = _content(message.get("content")), message.get("tool_calls") or ()
        if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
            raise TeacherError(f"{self._where} sent tool calls that are no objects", retryable=True)
        usage, finish, model = payload.get("usage"), choice.get("finish_reason"), payload.get("model")
        return Answer(
            Message(
                "assistant",
                content,
                reasoning_content=_str(message.get("reasoning_content")) or _str(message.get("reasoning")),
                tool_calls=tuple(calls),
                refusal=_str(message.get("refusal")),
            ),
            finish_reason=_str(finish),
            usage=usage if isinstance(usage, dict) else {},
            model=_str(model),
        )

    def _loads(self, body: bytes) -> Any:
        """The body's JSON, fit to be written: without halves of surrogate pairs and without our key; else None."""
        try:
            return clean_surrogates(self._without_key(json.loads(body.decode("utf-8-sig"), parse_constant=_null)))
        except (ValueError, RecursionError):
            return None

    def _without_key(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(self._key, "***") if self._key and len(self._key) >= SECRET_LENGTH else value
        if isinstance(value, dict):
            return {self._without_key(key): self._without_key(item) for key, item in value.items()}
        return [self._without_key(item) for item in value] if isinstance(value, list) else value

    def _clean(self, text: str) -> str:
        return " ".join(self._without_key(text).split())

    def _text(self, body: bytes) -> str:
        """The start of a body that is no JSON, on one line."""
        return self._clean(body[: 1 << 12].decode(errors="replace"))[:200]


def _message(message: Message) -> dict[str, Any]:
    """A message as servers take it back: DeepSeek's, for one, refuses reasoning in what it is sent."""
    row = message_to_dict(message)
    for key in ("reasoning_content", "refusal", "weight"):
        row.pop(key, None)
    return row


def _content(value: Any) -> str | None:
    """Text, or a list of parts with text; anything else counts as no content."""
    if isinstance(value, list):
        return "".join(_str(part.get("text")) or "" for part in value if isinstance(part, dict))
    return _str(value)


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _error_text(payload: Any) -> str | None:
    """The message in `{"error": {"message": …}}`, `{"error": "…"}`, `{"message": …}` or `{"detail": …}`."""
    if not isinstance(payload, dict):
        return None
    error = payload.get("error") or payload.get("message") or payload.get("detail")
    if isinstance(error, dict):
        error = error.get("message") or error
    if error is None:
        return None
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return " ".join(text.split())[:300]


def _error_code(payload: Any) -> str | None:
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return None
    codes = (error.get("code"), error.get("type"))
    return "insufficient_quota" if "insufficient_quota" in codes else _str(codes[0])


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; at most LONGEST_WAIT."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def _null(name: str) -> None:
    """NaN and Infinity, which some servers send as log probabilities, are no JSON."""


def _endpoint(base: str) -> str:
    """The URL to POST to. A query (`?api-version=…`) stays."""
    try:
        parts = urlsplit(base)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"base URL {_shown(base)!r} is not one", "write it like http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _shown(url: str) -> str:
    """A URL as errors show it: without what may be secret, user, password and query."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = bare.partition("://")
    if not slashes:
        return bare
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _read_key(variable: str, url: str) -> str | None:
    key = os.environ.get(variable, "").strip()  # a key file's newline is no part of the key
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in {variable} has characters that no key has", "copy it again")
    if not key and urlsplit(url).hostname == "api.openai.com":
        raise UsageError(
            f"no key: the environment variable {variable} is not set", f"export {variable}=…, or give --base-url"
        )
    return key or None


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for the URL; none for this machine itself."""
    from urllib.request import getproxies_environment, proxy_bypass_environment

    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local or proxy_bypass_environment(host):
        return None
    return getproxies_environment().get(parts.scheme)
