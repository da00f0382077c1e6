"""The one template environment of all pages."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

from distill.pages.visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

GENERATOR = '<meta name="generator" content="distill">'
"""In the head of every page: only pages that hold it are overwritten."""


@cache
def environment() -> Environment:
    """Templates escape everything, and refuse a name they were not given."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=PackageLoader("distill.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    made.filters["grouped"] = "{:,}".format
    made.filters["counted"] = counted
    made.filters["shown"] = shown
    made.globals["GENERATOR"] = Markup(GENERATOR)
    script = resources.files(__package__).joinpath("templates").joinpath("search.js").read_text(encoding="utf-8")
    made.globals["SCRIPT"] = Markup(script)  # our own file
    made.globals["SCRIPT_HASH"] = b64encode(sha256(script.encode()).digest()).decode()
    return made


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shown(value: Any) -> str:
    """A setting's value for people: no Python, no JSON where a word will do."""
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={shown(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def render_page(template: str, **values: Any) -> str:
    """Render a page.

    Args:
        template: its name, without `.html.jinja`.
        values: what the template uses.
    """
    return _text(environment().get_template(f"{template}.html.jinja").render(**values))


def page_stream(template: str, **values: Any) -> Iterator[str]:
    """As `render_page`, piece by piece, for pages that are large."""
    return map(_text, environment().get_template(f"{template}.html.jinja").generate(**values))


def fragment(template: str, **values: Any) -> str:
    """Render what a notebook shows of an object: a `div` with the pages' colours, scoped to itself."""
    return _text(environment().get_template(f"{template}.fragment.jinja").render(**values))


def macro(template: str, name: str, *args: Any) -> Markup:
    """Call a macro of a template."""
    made: Markup = getattr(environment().get_template(f"{template}.jinja").module, name)(*args)
    return made


def _text(html: str) -> str:
    """Text that a file can hold: a model may have written lone surrogates."""
    return html.encode("utf-8", "replace").decode()
