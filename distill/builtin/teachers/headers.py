"""The headers of a teacher's requests: the key, and those that the user names, with values from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from distill import UsageError

SECRET_LENGTH = 16
"""Values from this length on are replaced in what servers send; shorter ones are dummies such as `EMPTY`."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)\}|\$(\w+)")
_SECRET = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE)
_OURS = ("content-type", "content-length", "host", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers, and which texts in them are secret."""

    values: Mapping[str, str]
    secrets: Sequence[str]


def make_headers(own: Mapping[str, str], key: str | None, given: Mapping[str, str]) -> Headers:
    """Put a teacher's headers together.

    Args:
        own: what the API wants, the key among them.
        key: the key; None where there is none.
        given: by the user; `$NAME` or `${NAME}` in a value is an environment variable, `$$` a dollar sign. They
            replace the API's own of the same name.

    Raises:
        UsageError: a header is malformed, a variable is not set, or a key is written out.
    """
    values = {name.lower(): (name, value) for name, value in own.items()}
    secrets = [key] if key else []
    for name, value in given.items():
        filled, found = _filled(name, value)
        values[name.lower()] = (name, filled)
        secrets += [*found, filled.rpartition(" ")[2]] if found else []
    secret = [text for text in dict.fromkeys(secrets) if len(text) >= SECRET_LENGTH]
    return Headers(dict(values.values()), sorted(secret, key=len, reverse=True))


def _filled(name: str, value: str) -> tuple[str, list[str]]:
    """A header's value with its variables filled in, and the values of these."""
    if not isinstance(value, str) or not _NAME.fullmatch(name) or name.lower() in _OURS:
        raise UsageError(f"header {name!r} cannot be set", 'write -T \'headers={"name": "$VARIABLE"}\'')
    found: list[str] = []

    def fill(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable is None:
            return "$"
        text = os.environ.get(variable, "").strip()  # a key file's newline is no part of the key
        if not text:
            raise UsageError(f"header {name}: the environment variable {variable} is not set", f"export {variable}=…")
        found.append(text)
        return text

    filled = _VARIABLE.sub(fill, value)
    if not found and _SECRET.search(name) and len(value) >= SECRET_LENGTH:
        hint = f'export it, and write "{name}": "$VARIABLE"'
        raise UsageError(f"header {name}: a key does not belong on the command line, nor in a recipe", hint)
    if not filled.isprintable() or not filled.isascii():
        raise UsageError(f"header {name}: its value has characters that no header has", "copy it again")
    return filled, found


def read_key(variable: str, url: str, host: str | None) -> str | None:
    """The key in an environment variable; None where there is none.

    Args:
        variable: its name.
        url: where the key will be sent.
        host: the server that needs a key; None: the key may come in another header.

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
