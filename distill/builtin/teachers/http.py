"""The way to a paid server and back: one session, one deadline a request, and a clear end for every fault."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import math
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import distill
from distill import TeacherError, UsageError, clean_surrogates

if TYPE_CHECKING:
    import aiohttp

LONGEST_WAIT = 60.0
"""Seconds that a server's Retry-After is obeyed for, at most."""
LONGEST_CONNECT = 20.0
"""Seconds in which a connection must come about."""
LARGEST_BODY = 64 << 20
"""Bytes of one response; a server that sends more has lost its way."""
SECRET_LENGTH = 16
"""Keys from this length on are blotted out of what servers send; shorter ones are dummies such as `EMPTY`."""

_BROKE = {"insufficient_quota", "billing_error", "billing_not_active"}
_FATAL = (401, 402, 403, 404)


class HttpClient:
    """POSTs JSON to one address, over one session a run.

    Args:
        url: where to; as `endpoint` gives it.
        headers: of every request, the one with the key among them.
        key: the key, which is blotted out of whatever the server sends; None where there is none.
        key_env: the environment variable it came from, for hints.
        model: its name at the server, for hints.
        timeout: seconds for a whole request, its answer included.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], *, key: str | None, key_env: str, model: str, timeout: float
    ):
        agent = {"Content-Type": "application/json", "User-Agent": f"distill/{distill.__version__}"}
        self._url, self._headers, self._timeout = url, agent | dict(headers), timeout
        self._secret = key if key and len(key) >= SECRET_LENGTH else None
        self._key_env, self._model = key_env, model
        self._proxy = _proxy(url)
        self._session: aiohttp.ClientSession | None = None
        self.where = shown(url)

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request.

        Returns:
            The JSON object of a 200 response, fit to be written: no halves of surrogate pairs, no key of ours.

        Raises:
            TeacherError: there was none; says whether asking again may help.
        """
        import aiohttp

        try:
            response, answer = await self._exchange(json.dumps(body).encode())
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._no_answer(error) from None
        if response.status != 200:
            raise self._refused(response, answer)
        return self._parse(response, answer)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, data: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0),  # the collector limits what is in flight
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, LONGEST_CONNECT)),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no ~/.netrc in place of the key
            )
        # A redirect would turn the POST into a GET, or carry the key to another host.
        async with self._session.post(self._url, data=data, allow_redirects=False, proxy=self._proxy) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_BODY:
                    what = f"{self.where} sent more than {LARGEST_BODY >> 20} MiB in one answer"
                    raise TeacherError(what, maybe_paid=True)
            return response, bytes(body)

    def _no_answer(self, error: Exception) -> TeacherError:
        """The error for a request that brought no whole response."""
        import aiohttp

        where = self.where
        if isinstance(error, aiohttp.InvalidURL):
            return TeacherError(f"{where} is not a URL", "check --base-url", fatal=True)
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)):
            hint = "check --base-url: http or https, and the server's certificate"
            return TeacherError(f"no secure connection to {where}: {self._clean(str(error))}", hint, fatal=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            return _unreachable(where, error.os_error)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return _unreachable(where, TimeoutError(errno.ETIMEDOUT, ""))
        if isinstance(error, asyncio.TimeoutError):
            what = f"no whole answer from {where} within {self._timeout:g} s"
            return TeacherError(what, "raise --timeout", retryable=True, maybe_paid=True)
        what = f"the connection to {where} broke: {type(error).__name__}"
        return TeacherError(what, retryable=True, maybe_paid=True)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> TeacherError:
        """The error for a status other than 200."""
        status = response.status
        if 300 <= status < 400:
            to = shown(self._clean(response.headers.get("Location", "nowhere")))
            return TeacherError(f"{self.where} redirects to {to}", "give the right address as --base-url", fatal=True)
        payload = self._loads(body)
        reason = error_text(payload) or self._text(body)
        what = f"HTTP {status} from {self.where}" + (f": {reason}" if reason else "")
        return self._error(status, what, error_codes(payload), _wait(response.headers))

    def _error(self, status: int, what: str, codes: set[str], wait: float | None = None) -> TeacherError:
        """The error for a status, be it of the response or in an error object."""
        if codes & _BROKE or (status == 400 and "credit balance is too low" in what):
            return TeacherError(
                what,
                "the account's quota or money is used up; what came is kept: top it up, and run the same command again",
                fatal=True,
            )
        if status == 429:
            return TeacherError(what, "lower --concurrency", retryable=True, retry_after=wait, throttled=True)
        if status >= 500 or status in (408, 409, 425):
            # 529 and the like: the server has too much to do, as with 429
            return TeacherError(what, retryable=True, retry_after=wait, throttled=status == 529)
        hint = {
            401: f"check the key in {self._key_env}",
            402: "the account needs money",
            403: f"check what the key in {self._key_env} may do",
            404: f"check the model {self._model!r} and --base-url, which usually ends in /v1",
        }.get(status)
        return TeacherError(what, hint, fatal=status in _FATAL)

    def _parse(self, response: aiohttp.ClientResponse, body: bytes) -> dict[str, Any]:
        """The JSON object of a 200 response."""
        payload = self._loads(body)
        if isinstance(payload, dict):
            if payload.get("error"):
                raise self.reported(payload)
            return payload
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "text/event-stream") or body.lstrip()[:1] == b"<":
            what = "an event stream" if kind == "text/event-stream" else "a web page"
            hint = "check --base-url, which usually ends in /v1"
            raise TeacherError(f"{self.where} answered with {what}, not with JSON", hint, fatal=True)
        start = self._text(body)
        what = f"broken JSON: {start}" if start else "nothing"
        raise TeacherError(f"{self.where} answered with {what}", retryable=True, maybe_paid=True)

    def reported(self, payload: Mapping[str, Any]) -> TeacherError:
        """The error for an error object in a 200 response: gateways report the servers behind them so."""
        what = f"error from {self.where}: {error_text(payload) or 'unknown'}"
        codes = error_codes(payload)
        status = next((int(code) for code in codes if code.isascii() and code.isdigit() and len(code) == 3), 500)
        return self._error(status if status >= 400 else 500, what, codes)

    def _loads(self, body: bytes) -> Any:
        """The body's JSON, fit to be written; None where it is no JSON."""
        try:
            payload = json.loads(body.decode("utf-8-sig"), parse_constant=_null)
            if self._secret and (b"\\" in body or self._secret.encode() in body):
                payload = self._without_key(payload)
            # In decoded UTF-8 a half of a surrogate pair can only come from an escape.
            return clean_surrogates(payload) if b"\\u" in body else payload
        except (ValueError, RecursionError):
            return None

    def _without_key(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(self._secret, "***") if self._secret else value
        if isinstance(value, dict):
            return {self._without_key(key): self._without_key(item) for key, item in value.items()}
        return [self._without_key(item) for item in value] if isinstance(value, list) else value

    def _clean(self, text: str) -> str:
        return " ".join(self._without_key(text).split())

    def _text(self, body: bytes) -> str:
        """The start of a body that is no JSON, on one line."""
        return self._clean(body[: 1 << 12].decode(errors="replace"))[:200]


def _unreachable(where: str, cause: OSError) -> TeacherError:
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        hint = "lower --concurrency, or raise `ulimit -n`"
        return TeacherError(f"cannot reach {where}: {os.strerror(cause.errno)}", hint, fatal=True)
    reason = os.strerror(cause.errno) if (cause.errno or 0) > 0 else cause.strerror or type(cause).__name__
    hint = "is the server running? check --base-url"
    return TeacherError(f"cannot reach {where}: {reason}", hint, retryable=True, unreachable=True)


def error_text(payload: Any) -> str | None:
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


def error_codes(payload: Any) -> set[str]:
    """The `code` and `type` of an error object, as texts."""
    error = payload.get("error") if isinstance(payload, dict) else None
    codes = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return {str(code) for code in codes if isinstance(code, (str, int))}


def _wait(headers: Mapping[str, str]) -> float | None:
    milliseconds = retry_after(headers.get("retry-after-ms"), 0.001)
    return retry_after(headers.get("Retry-After")) if milliseconds is None else milliseconds


def retry_after(value: str | None, unit: float = 1.0) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; at most LONGEST_WAIT."""
    if value is None:
        return None
    try:
        seconds = float(value) * unit
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


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


def read_key(variable: str, url: str, host: str) -> str | None:
    """The key in an environment variable; None where there is none.

    Args:
        variable: its name.
        url: where the key will be sent.
        host: the one that asks for a key.

    Raises:
        UsageError: it is malformed, or is missing where `host` is asked.
    """
    key = os.environ.get(variable, "").strip()  # a key file's newline is no part of the key
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in {variable} has characters that no key has", "copy it again")
    if not key and urlsplit(url).hostname == host:
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
