"""The few constructs of Go's text/template that an exported Modelfile uses: writing them, and running them.

Everything outside `{{ }}` is printed unchanged. An exported template is run here on several conversations before it is
published; most machines have no Go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_ACTION = re.compile(r"\{\{ (.*?) \}\}", re.S)
_UNSAFE = re.compile(r'[{"\x00-\x08\x0b-\x1f\x7f]')


_Tokens = list[tuple[bool, str]]
"""A template in pieces: whether each is an action, and its text."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """The variables that a template sees.

    Attributes:
        messages: of the conversation.
        index: the current message's place, `$i`.
    """

    messages: Sequence[Mapping[str, str]] = ()
    index: int = 0

    @property
    def message(self) -> Mapping[str, str]:
        """The current message, `$m`."""
        return self.messages[self.index]


class NoPlace(Exception):
    """The template fails on purpose: the format has no place for such a message."""


def literal(text: str) -> str:
    """Escape text so that it prints itself: braces, quotes (they would end the Modelfile's) and control characters."""
    return _UNSAFE.sub(lambda found: "{{ " + quoted(found.group()) + " }}", text)


def quoted(text: str) -> str:
    """Write a Go string literal; printable characters stay, quotes and control characters become escapes."""
    shown = {'"': r"\x22", "\\": r"\\"}
    inside = "".join(
        shown.get(char) or (char if char >= " " and char != "\x7f" else f"\\x{ord(char):02x}") for char in text
    )
    return f'"{inside}"'


def fail(reason: str) -> str:
    """Write an action that makes Go stop with an error that shows the reason: there is no other way to refuse."""
    return "{{ slice " + quoted(reason) + " 999 }}"


def run(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """Render a conversation with a template made of these constructs.

    Raises:
        NoPlace: the template refuses one of the messages.
        ValueError: the template contains another construct.
    """
    parts = _ACTION.split(template)
    tokens = [(bool(n % 2), part) for n, part in enumerate(parts) if part]
    position, out = _run(tokens, 0, _Scope(messages), True)
    if position != len(tokens):
        raise ValueError(f"unexpected {tokens[position][1]!r}")
    return out


def _run(tokens: _Tokens, at: int, scope: _Scope, live: bool) -> tuple[int, str]:
    """Run up to the `end` or `else` that closes this block; returns its place, and what was printed."""
    out = ""
    while at < len(tokens):
        action, text = tokens[at]
        if not action:
            out += text if live else ""
        elif text == "end" or text.startswith("else"):
            return at, out
        elif text.startswith("if "):
            at, printed = _branches(tokens, at, scope, live)
            out += printed
        elif text == "range $i, $m := .Messages":
            start = at + 1
            for number in range(len(scope.messages)):
                _, printed = _run(tokens, start, _Scope(scope.messages, number), live)
                out += printed
            at, _ = _run(tokens, start, _Scope(), False)
        elif live:
            out += _value(text, scope)
        at += 1
    return at, out


def _branches(tokens: _Tokens, at: int, scope: _Scope, live: bool) -> tuple[int, str]:
    """`if`, `else if` …, `else`, `end`: the first that holds is printed."""
    out, taken = "", False
    condition: str | None = tokens[at][1].removeprefix("if ")
    while True:
        holds = live and not taken and (condition is None or _holds(condition, scope))
        at, printed = _run(tokens, at + 1, scope, holds)
        out, taken = out + printed, taken or holds
        if at >= len(tokens):
            raise ValueError("a block has no end")
        word = tokens[at][1]
        if word == "end":
            return at, out
        condition = word.removeprefix("else if ") if word.startswith("else if ") else None


def _holds(condition: str, scope: _Scope) -> bool:
    if condition == "eq $i 0":
        return scope.index == 0
    found = re.fullmatch(r'eq \$m\.Role (".*")', condition)
    if not found:
        raise ValueError(f"unknown condition {condition!r}")
    return scope.message["role"] == _string(found.group(1))


def _value(action: str, scope: _Scope) -> str:
    if action == "$m.Content":
        return scope.message["content"]
    if action.startswith("slice "):
        raise NoPlace(_string(action.removeprefix("slice ").removesuffix(" 999")))
    return _string(action)


def _string(source: str) -> str:
    if not re.fullmatch(r'"([^"\\\n]|\\\\|\\x[0-9a-f]{2})*"', source):
        raise ValueError(f"unknown action {source!r}")
    return "".join(_unescaped(source[1:-1]))


def _unescaped(inside: str) -> Iterator[str]:
    for found in re.finditer(r"\\\\|\\x([0-9a-f]{2})|[^\\]", inside):
        yield chr(int(found.group(1), 16)) if found.group(1) else found.group()[-1]
