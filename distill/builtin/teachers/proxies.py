"""The proxy that the environment names, and how errors name it."""

from __future__ import annotations

import ipaddress
import os
from typing import NamedTuple
from urllib.parse import urlsplit

from distill import UsageError


class Proxy(NamedTuple):
    """A proxy, and the environment variable that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL, from `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`; none for this machine and `NO_PROXY`.

    Raises:
        UsageError: it is no HTTP proxy.
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
    if scheme.startswith("socks"):
        hint = f"name an HTTP proxy, or put the server into NO_PROXY, or unset {variable}"
        raise UsageError(f"{proxy} is a SOCKS proxy, and distill speaks to HTTP proxies only", hint)
    if scheme not in ("http", "https") or not host:
        raise UsageError(f"{variable} is not the URL of a proxy", "write it like http://proxy.example:3128")
    return proxy


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
