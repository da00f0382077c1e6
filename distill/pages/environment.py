"""One template environment for all pages, and one guarded writer: a page replaces nothing but another page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError, UsageError
from distill.files.atomic import whole_file
from distill.files.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def environment(**filters: Callable[..., Any]) -> Environment:
    """The templates of `distill/pages/templates`, escaped; an undefined name is an error.

    Args:
        filters: more filters, or others of the same name; `visible` is `visible_tokens`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("distill.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({"visible": visible_tokens, **filters})
    return made


@cache
def _plain_environment() -> Environment:
    return environment()


def render(template: str, **values: Any) -> str:
    """Render a template of `distill/pages/templates`, e.g. for a notebook."""
    return _plain_environment().get_template(template).render(**values)


def visible_tokens(text: str) -> Markup:
    """Text with every character visible: invisible ones become escapes with a look of their own, line breaks a mark."""
    from markupsafe import Markup, escape

    shown: list[str] = []
    for char in text:
        if char == "\n":
            shown.append(Markup("<i>↵</i>\n"))
        elif char.isprintable():
            shown.append(escape(char))
        else:
            shown.append(Markup("<i>{}</i>").format(printable(char)))
    return Markup("").join(shown)


def write_page(target: Path, page: Iterable[str]) -> None:
    """Write a page atomically.

    Args:
        target: the file. A page that is there already is replaced; another file is not.
        page: the HTML, in pieces.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be written.
    """
    check_target(target)
    try:
        with whole_file(target) as file:
            file.writelines(page)
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file that can be written") from None


def check_target(target: Path) -> None:
    """Replace only what looks like a page: a slip of the hand must not cost a file of transcripts.

    Raises:
        UsageError: `target` is another file.
        DistillError: it cannot be read, or its folder is missing.
    """
    try:
        with open(target, "rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        if not target.parent.is_dir():
            raise DistillError(f"{target}: {error.strerror}", "create its folder first") from None
        return
    except OSError as error:
        raise DistillError(f"{target}: {error.strerror or error}", "give a file to write to") from None
    if head and not head.lstrip().lower().startswith(b"<!doctype html"):
        raise UsageError(f"refusing to overwrite {target}: it is not an HTML file", "give another file to write to")
