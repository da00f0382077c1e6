"""A client for paid servers: one session per run, one deadline per request, and a clear outcome for every fault."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import distill
from distill import TeacherError, UsageError, clean_surrogates
from distill.builtin.teachers.headers import Headers
from distill.builtin.teachers.proxies import proxy_for, socks_connector, socks_errors, socks_problem
from distill.builtin.teachers.statuses import BASE_RESP, BROKE, rule_of, status_in
from distill.builtin.teachers.streaming import is_stream
from distill.builtin.teachers.waits import wait_of

if TYPE_CHECKING:
    import aiohttp

LONGEST_CONNECT = 20.0
"""Seconds in which a connection must come about."""
LARGEST_BODY = 64 << 20
"""Bytes of one response; a longer one is an error of the server."""
LARGEST_HEADER = 64 << 10
"""Bytes of one header line: some gateways send more than the client's usual 8 KiB."""
_SENT: ContextVar[SimpleNamespace] = ContextVar("sent")
"""What is known of the request that this task is sending: whether its connection was reused, and answered."""

Joiner = Callable[[bytes], "dict[str, Any] | None"]
"""Puts an event stream together; None where it broke off."""


class HttpClient:
    """POSTs JSON to one address, over one session per run.

    Args:
        url: where to; as `endpoint` gives it.
        headers: of every request; their secrets are replaced in whatever the server sends.
        key_env: the environment variable of the key, for hints.
        model: its name at the server, for hints.
        timeout: seconds for a whole request, its answer included.
        join: puts an event stream together.
    """

    def __init__(self, url: str, headers: Headers, *, key_env: str, model: str, timeout: float, join: Joiner):
        agent = {"Content-Type": "application/json", "User-Agent": f"distill/{distill.__version__}"}
        self._url, self._headers, self._timeout = url, agent | dict(headers.values), timeout
        self._secrets = headers.secrets
        self._key_env, self._model, self._join = key_env, model, join
        self._proxy = proxy_for(url)
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self.where = shown(url)

    @cached_property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What sending a request may raise."""
        import aiohttp

        return (aiohttp.ClientError, OSError, asyncio.TimeoutError, *socks_errors(self._proxy))

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request.

        Returns:
            The JSON object of a 2xx response, or an event stream put together to one; without lone surrogates and
            without our secrets.

        Raises:
            TeacherError: there was none; its flags tell whether asking again may help.
        """
        try:
            response, answer = await self._exchange(json.dumps(body).encode())
        except self._failures as error:
            raise self._no_answer(error) from None
        if not 200 <= response.status < 300:
            raise self._refused(response, answer)
        return self._parse(response, answer)

    async def close(self) -> None:
        """Close the connections."""
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()

    async def _exchange(self, data: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        """Send the request; once more, over a new connection, where a reused one turns out to be closed."""
        import aiohttp

        sent = SimpleNamespace(reused=True, answered=False)
        _SENT.set(sent)
        self._session = self._session or self._open()
        try:
            return await self._send(self._session, data, sent)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not sent.reused or sent.answered:
                raise
        self._fresh = self._fresh or self._open(keep=False)
        return await self._send(self._fresh, data, sent)

    async def _send(
        self, session: aiohttp.ClientSession, data: bytes, sent: SimpleNamespace
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        proxy = self._proxy.url if self._proxy and not self._proxy.is_socks else None
        # A redirect would turn the POST into a GET, or carry the key to another host.
        async with session.post(self._url, data=data, allow_redirects=False, proxy=proxy) as response:
            sent.answered = True
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_BODY:
                    what = f"{self.where} sent more than {LARGEST_BODY >> 20} MiB in one answer"
                    raise TeacherError(what, maybe_paid=True)
            return response, bytes(body)

    def _open(self, *, keep: bool = True) -> aiohttp.ClientSession:
        """A session; without `keep`, each of its requests has a connection of its own."""
        import aiohttp

        def connect(address: Any) -> socket.socket:
            _SENT.get().reused = False
            return socket.socket(*address[:3])

        async def connects(*event: Any) -> None:
            _SENT.get().reused = False

        limits: dict[str, Any] = {"limit": 0, "force_close": not keep}  # the collector limits what is in flight
        traces = []
        if self._proxy is not None and self._proxy.is_socks:  # it makes its sockets itself
            connector = socks_connector(self._proxy, **limits)
            traces.append(aiohttp.TraceConfig())
            traces[0].on_connection_create_start.append(connects)
        else:
            connector = aiohttp.TCPConnector(socket_factory=connect, **limits)
        return aiohttp.ClientSession(
            headers=self._headers,
            connector=connector,
            trace_configs=traces,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, LONGEST_CONNECT)),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no ~/.netrc in place of the key
            max_line_size=LARGEST_HEADER,
            max_field_size=LARGEST_HEADER,
        )

    def _no_answer(self, error: Exception) -> TeacherError:
        """The error for a request that brought no whole response."""
        import aiohttp

        where = self.where
        if isinstance(error, aiohttp.InvalidURL):
            return TeacherError(f"{where} is not a URL", "check --base-url", fatal=True)
        if self._proxy is not None and isinstance(error, socks_errors(self._proxy)):
            return socks_problem(self._proxy, where, error)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            what = f"{self._proxy} refused the way to {where}: HTTP {error.status}"
            return TeacherError(what, "check the proxy, or put the server into NO_PROXY", fatal=True, retryable=True)
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)):
            hint = "check --base-url: http or https, and the server's certificate"
            return TeacherError(f"no secure connection to {where}: {self._clean(str(error))}", hint, fatal=True)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            hint = f"is the proxy running? It is needed to reach {where}; NO_PROXY lists servers to reach without it"
            return _unreachable(str(self._proxy), error.os_error, hint)
        if isinstance(error, aiohttp.ClientConnectorError):
            return _unreachable(where, error.os_error)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return _unreachable(where, TimeoutError(errno.ETIMEDOUT, ""))
        if isinstance(error, asyncio.TimeoutError):
            what = f"no whole answer from {where} within {self._timeout:g} s"
            return TeacherError(what, "raise --timeout", retryable=True, maybe_paid=True)
        what = f"the connection to {where} broke: {type(error).__name__}"
        if isinstance(error, aiohttp.ClientPayloadError) and "encod" in str(error):
            what = f"the answer of {where} cannot be decoded: {self._clean(str(error))[:100]}"
        no_response = isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
        return TeacherError(what, retryable=True, maybe_paid=True, down=no_response)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> TeacherError:
        """The error for a status that is no success."""
        status, headers = response.status, response.headers
        if 300 <= status < 400:
            target = self._clean(shown(headers.get("Location", "nowhere")))
            what = f"HTTP {status}: {self.where} redirects to {target}"
            return TeacherError(what, rule_of(status).hint, fatal=True)
        payload = self._loads(body)
        reason = error_text(payload) or self._text(body)
        what = f"HTTP {status} from {self.where}" + (f": {reason}" if reason else "")
        return self._error(status, what, payload, headers)

    def _error(self, status: int, what: str, payload: Any, headers: Mapping[str, str] | None = None) -> TeacherError:
        """The error for a status, be it of the response or in an error object."""
        if error_codes(payload) & BROKE or (status == 400 and "credit balance is too low" in what):
            return TeacherError(
                what,
                "the account's quota or money is used up; what came is kept: top it up, and run the same command again",
                fatal=True,
            )
        rule = rule_of(status)
        flags, hint = dict(rule.flags), rule.hint
        if flags.get("retryable") and not flags.get("fatal"):
            flags["retry_after"] = wait_of(headers or {}, payload, what, limited=bool(flags.get("throttled")))
            if flags["retry_after"] is not None:
                flags.pop("down", None)  # the server itself tells when it is back
        if hint is not None:
            hint = hint.format(key=self._key_env, model=self._model)
        return TeacherError(what, hint, **flags)

    def _parse(self, response: aiohttp.ClientResponse, body: bytes) -> dict[str, Any]:
        """The JSON object of a 2xx response."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if is_stream(kind, body):
            payload: Any = self._fit(self._join(body), body)
            if payload is None:
                what = f"the event stream of {self.where} broke off before its end"
                raise TeacherError(what, retryable=True, maybe_paid=True)
        else:
            payload = self._loads(body)
        if isinstance(payload, dict):
            if _reports_error(payload):
                raise self.reported(payload)
            return payload
        if kind == "text/html" or body.lstrip()[:1] == b"<":
            hint = "check --base-url, which usually ends in /v1"
            # A gateway that is being restarted sends such a page, too: after good answers, it is worth another try.
            raise TeacherError(
                f"{self.where} answered with a web page, not with JSON", hint, fatal=True, retryable=True
            )
        start = self._text(body)
        what = f"broken JSON: {start}" if start else "nothing"
        raise TeacherError(f"{self.where} answered with {what}", retryable=True, maybe_paid=True)

    def reported(self, payload: Mapping[str, Any]) -> TeacherError:
        """The error for an error object in a 2xx response: gateways report the servers behind them so."""
        what = f"error from {self.where}: {error_text(payload) or 'unknown'}"
        base = payload.get("base_resp")
        if isinstance(base, Mapping) and base.get("status_code"):
            return self._error(BASE_RESP.get(base["status_code"], 500), what, payload)
        return self._error(status_in(error_codes(payload)), what, payload)

    def _loads(self, body: bytes) -> Any:
        """The body's JSON, fit to be written; None where it is no JSON."""
        try:
            payload = json.loads(body.decode("utf-8-sig"), parse_constant=_null)
            if isinstance(payload, list) and payload and isinstance(payload[0], dict) and payload[0].get("error"):
                payload = payload[0]  # Google's errors are lists
            return self._fit(payload, body)
        except (ValueError, RecursionError):
            return None

    def _fit(self, payload: Any, body: bytes) -> Any:
        """A payload without our secrets and without lone surrogates."""
        if b"\\" in body or any(secret.encode() in body for secret in self._secrets):
            payload = self._without_secrets(payload)
        # In decoded UTF-8 a lone surrogate can only come from an escape.
        return clean_surrogates(payload) if b"\\u" in body else payload

    def _without_secrets(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, dict):
            return {self._without_secrets(key): self._without_secrets(item) for key, item in value.items()}
        return [self._without_secrets(item) for item in value] if isinstance(value, list) else value

    def _clean(self, text: str) -> str:
        return " ".join(str(self._without_secrets(text)).split())

    def _text(self, body: bytes) -> str:
        """The start of a body that is no JSON, on one line."""
        return self._clean(body[: 1 << 12].decode(errors="replace"))[:200]


def _unreachable(where: str, cause: OSError, hint: str = "is the server running? check --base-url") -> TeacherError:
    number = cause.errno or 0
    if number in (errno.EMFILE, errno.ENFILE):
        hint = "lower --concurrency, or raise `ulimit -n`"
        return TeacherError(f"cannot reach {where}: {os.strerror(number)}", hint, fatal=True)
    reason = os.strerror(number) if number > 0 else cause.strerror or type(cause).__name__
    return TeacherError(f"cannot reach {where}: {reason}", hint, retryable=True, unreachable=True)


def _reports_error(payload: Mapping[str, Any]) -> bool:
    base = payload.get("base_resp")
    return (
        bool(payload.get("error"))
        or _is_error_object(payload)
        or (isinstance(base, Mapping) and bool(base.get("status_code")))
    )


def _is_error_object(payload: Any) -> bool:
    """Whether the payload itself is the error, as older versions of vLLM send it."""
    return isinstance(payload, dict) and payload.get("object") == "error"


def error_text(payload: Any) -> str | None:
    """The message in `{"error": {"message": …}}`, `{"error": "…"}`, or under another key for errors."""
    if not isinstance(payload, dict):
        return None
    base = payload.get("base_resp")
    error = next((payload[key] for key in ("error", "message", "detail", "errors", "msg") if payload.get(key)), None)
    error = error or (base.get("status_msg") if isinstance(base, dict) else None)
    if isinstance(error, dict):
        error = error.get("message") or error
    if error is None:
        return None
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return " ".join(text.split())[:300]


def error_codes(payload: Any) -> set[str]:
    """The `code`, `type` and `status` of an error object, as texts."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if error is None and _is_error_object(payload):
        error = payload
    if not isinstance(error, dict):
        return set()
    codes = (error.get("code"), error.get("type"), error.get("status"))
    return {str(code) for code in codes if isinstance(code, (str, int))}


def _null(name: str) -> None:
    """NaN and Infinity, which some servers send as log probabilities, are no JSON."""


def endpoint(base: str, path: str) -> str:
    """The URL to POST to: `base` with `path` at its end. A query (`?api-version=…`) stays.

    Raises:
        UsageError: `base` is no URL of a server, or holds a user and password.
    """
    try:
        parts = urlsplit(base)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"base URL {shown(base)!r} is not one", "write it like http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise UsageError("the base URL holds a user or a password", "put the key into the environment variable instead")
    stem = parts.path.rstrip("/")
    if not stem.endswith(path):
        stem += path
    return urlunsplit((parts.scheme, parts.netloc, stem, parts.query, ""))


def shown(url: str) -> str:
    """A URL as errors show it: without what may be secret, user, password and query."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = bare.partition("://")
    if not slashes:
        return bare
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
