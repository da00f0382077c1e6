"""YAML without surprises: what stands in the file is what is meant, and each value knows its line.

Read as YAML 1.2's core schema: `no` is a text, not false; `012` is twelve; `1e-4` is a number; a date is a text. Two
equal keys, aliases, tags and several documents are refused: a recipe needs none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill.errors import UsageError

MAX_BYTES = 1 << 20

Place = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"

# The core schema of YAML 1.2, section 10.3.2: pattern, first characters, and what a match means.
_CORE: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("null", r"null|Null|NULL|~|", "nN~", lambda text: None),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", lambda text: _int(text)),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    ),
    ("str", r"", "", str),
)
_READ = {_TAG + name: read for name, _, _, read in _CORE}

# Names under which nobody keeps anything but a secret, and what keys of well-known services look like.
_SECRET_NAME = re.compile(
    r"(^|[-_.])((api|access|auth|hub|hf|bearer)[-_]?(key|token)|secret|password|passwd|authorization)$|^(key|token)$",
    re.I,
)
_SECRET_VALUE = re.compile(
    r"\b(sk-[\w-]{12,}|hf_\w{16,}|gsk_\w{16,}|xai-\w{16,}|AIza[\w-]{20,}|ghp_\w{20,}|nvapi-[\w-]{16,})|\bBearer\s+\S{8,}"
    r"|://[^/\s@:]*:[^/\s@]+@"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A YAML file.

    Attributes:
        path: as it was named.
        text: all of it.
        values: its mapping, of plain values.
        places: where each value stands, by its keys: line and column, both from 1.
    """

    path: Path
    text: str
    values: Mapping[str, Any]
    places: Mapping[Place, tuple[int, int]]

    def where(self, place: Place) -> str:
        """`FILE:LINE:COLUMN` of a value, or of what it should stand in."""
        while place and place not in self.places:
            place = place[:-1]
        line, column = self.places.get(place, (1, 1))
        return f"{self.path}:{line}:{column}"


def load_yaml(path: str | Path) -> Loaded:
    """Read a YAML file whose top is a mapping.

    Raises:
        UsageError: it cannot be read, is no such YAML, or holds a secret; says file, line and column.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give a recipe: a YAML file") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has {len(data)} bytes; a recipe has {MAX_BYTES} at most", "prompts are another file")
    try:
        text = data.decode("utf-8-sig")
        top = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: {error}", "save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{path}{_mark(error.problem_mark)}: {_text(error)}", _hint(error)) from None
    except yaml.YAMLError:  # of a character that YAML does not allow: its text would print it
        raise UsageError(f"{path}: it holds a character that YAML does not allow", "save it as plain text") from None
    except RecursionError:
        raise UsageError(f"{path}: it is nested too deeply") from None
    places: dict[Place, tuple[int, int]] = {}
    if not isinstance(top, yaml.MappingNode):
        raise UsageError(f"{path}: not a recipe: its top is no mapping", "start with `prompts: FILE`")
    return Loaded(path, text, _value(path, top, (), places), places)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the core schema of YAML 1.2 instead of YAML 1.1's types."""

    yaml_implicit_resolvers: dict[str, list] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML's, without aliases: a few of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name), which recipes do not have", mark)
        return super().compose_node(parent, index)


for _name, _pattern, _first, _ in _CORE[:-1]:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), [*_first, *[""] * (_name == "null")])


def _value(path: Path, node: yaml.Node, place: Place, places: dict[Place, tuple[int, int]]) -> Any:
    """A node's plain value; notes where it and all in it stand."""
    places.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
    where = f"{path}{_mark(node.start_mark)}"
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        found: dict[str, Any] = {}
        for key, item in _pairs(path, node):
            places[(*place, key.value)] = (key.start_mark.line + 1, key.start_mark.column + 1)
            if key.value in found:
                raise UsageError(
                    f"{path}{_mark(key.start_mark)}: {key.value!r} is given twice", "leave one of them out"
                )
            found[key.value] = _value(path, item, (*place, key.value), places)
            _refuse_secret(f"{path}{_mark(item.start_mark)}", key.value, found[key.value])
        return found
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(path, item, (*place, n), places) for n, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag in _READ:
        try:
            value = _READ[node.tag](node.value)
        except ValueError:
            raise UsageError(f"{where}: {node.value[:40]!r} is no {node.tag.removeprefix(_TAG)}") from None
        _refuse_secret(where, "", value)
        return value
    raise UsageError(f"{where}: the tag {node.tag.removeprefix(_TAG)[:40]!r}, which recipes do not have")


def _pairs(path: Path, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            raise UsageError(
                f"{path}{_mark(key.start_mark)}: a key that is no text", "put it in quotes, if it is meant"
            )
        yield key, item


def _refuse_secret(where: str, key: str, value: Any) -> None:
    """Refuse a secret: recipes are committed, and copied into run folders. The value is not shown.

    Raises:
        UsageError: the key's name, or the look of the value, says that it is one.
    """
    if isinstance(value, str) and value and (_SECRET_NAME.search(key) or _SECRET_VALUE.search(value)):
        raise UsageError(
            f"{where}: {f'{key!r} holds' if key else 'this is'} what looks like a secret; a recipe is no place for one",
            "put it into the environment variable that the teacher reads, as OPENAI_API_KEY, and leave it out here",
        )


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _mark(mark: Any) -> str:
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"


def _text(error: yaml.MarkedYAMLError) -> str:
    parts = (
        (error.context, error.problem) if str(error.problem).startswith("but ") else (error.problem or error.context,)
    )
    return " ".join(part for part in parts if part)


def _hint(error: yaml.MarkedYAMLError) -> str | None:
    if "mapping values are not allowed" in (error.problem or ""):
        return "a text with `: ` in it needs quotes"
    return None
