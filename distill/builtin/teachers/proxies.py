"""The proxy that the environment names, and how errors name it."""

from __future__ import annotations

import ipaddress
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from distill import TeacherError, UsageError

if TYPE_CHECKING:
    import aiohttp

_SOCKS = {"socks": "socks5", "socks5": "socks5", "socks5h": "socks5", "socks4": "socks4", "socks4a": "socks4"}
_AWAY = (3, 4, 5, 6)
"""SOCKS 5's codes for a server that cannot be reached: its network, its host, its port, in time."""


class Proxy(NamedTuple):
    """A proxy, and the environment variable that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.variable})"

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, and not HTTP."""
        return urlsplit(self.url).scheme in _SOCKS


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL, from `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`; none for this machine and `NO_PROXY`.

    Raises:
        UsageError: it is no URL of a proxy, or a SOCKS proxy's and the package for those is not installed.
    """
    parts = urlsplit(url)
    if _is_local(parts.hostname or "") or _is_exempt(parts.netloc.rpartition("@")[2]):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            value = os.environ.get(variable, "").strip()
            if value:
                return _checked(value, variable)
    return None


def _checked(value: str, variable: str) -> Proxy:
    proxy = Proxy(value if "://" in value else f"http://{value}", variable)
    try:
        scheme, host = urlsplit(proxy.url).scheme, urlsplit(proxy.url).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https", *_SOCKS) or not host:
        raise UsageError(f"{variable} is not the URL of a proxy", "write it like http://proxy.example:3128")
    if proxy.is_socks and find_spec("aiohttp_socks") is None:
        hint = "pip install 'distill-chat[socks]', or put the server into NO_PROXY"
        raise UsageError(f"{proxy} is a SOCKS proxy, which needs the package aiohttp-socks", hint)
    return proxy


def socks_connector(proxy: Proxy, **options: Any) -> aiohttp.TCPConnector:
    """A connector through a SOCKS proxy, which looks up the names of servers."""
    from aiohttp_socks import ProxyConnector, ProxyType

    parts = urlsplit(proxy.url)
    return ProxyConnector(
        host=parts.hostname or "",
        port=parts.port or 1080,
        proxy_type=ProxyType[_SOCKS[parts.scheme].upper()],
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        rdns=True,
        **options,
    )


def socks_errors(proxy: Proxy | None) -> tuple[type[Exception], ...]:
    """What a SOCKS proxy's connector raises; nothing for other proxies."""
    if proxy is None or not proxy.is_socks:
        return ()
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    return (ProxyError, ProxyConnectionError, ProxyTimeoutError)


def socks_problem(proxy: Proxy, where: str, error: Exception) -> TeacherError:
    """The error for a request that a SOCKS proxy did not carry to a server."""
    from aiohttp_socks import ProxyError

    reason = " ".join(str(error).split())[:200]
    if not isinstance(error, ProxyError):
        hint = f"is the proxy running? It is needed to reach {where}; NO_PROXY lists servers to reach without it"
        host = urlsplit(proxy.url).netloc.rpartition("@")[2]
        return TeacherError(
            f"cannot reach {proxy}: {reason.replace(host, 'it')}", hint, retryable=True, unreachable=True
        )
    what = f"{proxy} did not reach {where}: {reason}"
    if error.error_code in _AWAY:
        return TeacherError(what, "is the server running? check --base-url", retryable=True, unreachable=True)
    return TeacherError(what, "check the proxy, or put the server into NO_PROXY", fatal=True, retryable=True)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_exempt(netloc: str) -> bool:
    from urllib import request

    # Not in every platform's stubs: it is in the library on all POSIX systems.
    exempt: bool = request.proxy_bypass_environment(netloc)  # type: ignore[attr-defined]
    return exempt
