"""What a user's choices put before a chat template: it is part of the template that is saved with the student."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FOLD_SYSTEM = (
    "{% if messages and messages[0]['role'] == 'system' and messages | length > 1 and messages[1]['role'] == 'user' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] %}{% endif %}\n"
)
"""Puts a system message into the first question, for templates that have no place for one."""

INLINE_REASONING = (
    "{% set inlined = namespace(messages=[]) %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' and message['reasoning_content'] %}"
    "{% set text = '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' + (message['content'] or '') %}"
    "{% set inlined.messages = inlined.messages + [dict(message, content=text, reasoning_content=none)] %}"
    "{% else %}{% set inlined.messages = inlined.messages + [message] %}{% endif %}{% endfor %}"
    "{% set messages = inlined.messages %}\n"
)
"""Puts reasoning before its answer as `<think>…</think>`, for templates that do not read `reasoning_content`."""


def set_variables(values: Mapping[str, Any]) -> str:
    """Defaults for a template's variables; what a caller passes at inference still takes precedence."""
    return "".join(
        f"{{% set {name} = {name} if {name} is defined else {_literal(value)} %}}\n"
        for name, value in sorted(values.items())
    )


def _literal(value: Any) -> str:
    """A JSON value in Jinja's spelling."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
