"""YAML without surprises: a recipe means what it looks like, and each value knows its line.

Read as YAML 1.2: `no` is a text, not false; `012` is twelve; `1e-4` is a number; a date is a text. Two equal keys,
aliases, tags and several documents are refused: a recipe needs none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from distill.errors import UsageError
from distill.files.nearby import did_you_mean

MAX_BYTES = 1 << 20

Place = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


def _int(text: str) -> int | str:
    if "_" in text:  # YAML 1.1's, no number any more
        return text
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_READ: Mapping[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _int,
    _TAG + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    _TAG + "str": str,
    _TAG + "timestamp": str,
    _TAG + "merge": str,
}
"""Tag of a scalar → how its text becomes a value."""

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
        places: where each value is, by its keys: line and column, both from 1.
    """

    path: Path
    text: str
    values: Mapping[str, Any]
    places: Mapping[Place, tuple[int, int]]

    def where(self, place: Place) -> str:
        """`FILE:LINE:COLUMN` of a value, or of the section that lacks it."""
        while place and place not in self.places:
            place = place[:-1]
        line, column = self.places.get(place, (1, 1))
        return f"{self.path}:{line}:{column}"


def load_yaml(path: str | Path) -> Loaded:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UsageError: it cannot be read, is not such a file, or contains a secret; names file, line and column.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        near = did_you_mean(path, Path.is_file)
        raise UsageError(f"{path}: {error.strerror}", near or "give a recipe: a YAML file") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has {len(data)} bytes; a recipe has {MAX_BYTES} at most", "prompts are another file")
    try:
        text = data.decode("utf-8-sig")
        top = YAML(typ="safe", pure=True).compose(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: {error}", "save the file as UTF-8") from None
    except MarkedYAMLError as error:
        message, hint = _explain(error)
        raise UsageError(f"{path}{_mark(error.problem_mark)}: {message}", hint) from None
    except YAMLError:  # of a character that YAML does not allow: its text would print it
        raise UsageError(f"{path}: it contains a character that YAML does not allow", "save it as plain text") from None
    except RecursionError:
        raise UsageError(f"{path}: it is nested too deeply") from None
    if not isinstance(top, MappingNode):
        raise UsageError(f"{path}: the top level must be a mapping", "start with `prompts: FILE`")
    reader = _Reader(path)
    return Loaded(path, text, reader.value(top, ()), reader.places)


@dataclass(slots=True)
class _Reader:
    """Makes plain values of YAML's nodes, and notes where each of them is."""

    path: Path
    places: dict[Place, tuple[int, int]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def value(self, node: Node, place: Place) -> Any:
        """A node's plain value."""
        where = f"{self.path}{_mark(node.start_mark)}"
        if id(node) in self.seen:  # a few of them can stand for gigabytes
            raise UsageError(f"{where}: an alias (*name) of this value; recipes have none", "repeat the value")
        self.seen.add(id(node))
        self.places.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
        tag = str(node.tag)
        if isinstance(node, MappingNode) and tag == _TAG + "map":
            return self._mapping(node, place)
        if isinstance(node, SequenceNode) and tag == _TAG + "seq":
            return [self.value(item, (*place, n)) for n, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and tag in _READ:
            try:
                found = _READ[tag](node.value)
            except ValueError:
                raise UsageError(f"{where}: {node.value[:40]!r} is not a valid number") from None
            _refuse_secret(where, "", found)
            return found
        raise UsageError(f"{where}: unsupported tag {tag.removeprefix(_TAG)[:40]!r}", "write the value without it")

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in self._pairs(node):
            where = _mark(key.start_mark)
            inner = (*place, key.value)
            self.places[inner] = (key.start_mark.line + 1, key.start_mark.column + 1)
            if key.value in found:
                raise UsageError(f"{self.path}{where}: {key.value!r} is given twice", "leave one of them out")
            found[key.value] = self.value(item, inner)
            _refuse_secret(f"{self.path}{_mark(item.start_mark)}", key.value, found[key.value])
        return found

    def _pairs(self, node: MappingNode) -> Iterator[tuple[ScalarNode, Node]]:
        for key, item in node.value:
            if not isinstance(key, ScalarNode) or _READ.get(str(key.tag)) is not str:
                where = _mark(key.start_mark)
                raise UsageError(f"{self.path}{where}: a key must be a string", "quote it, if it is meant")
            yield key, item


def _refuse_secret(where: str, key: str, value: Any) -> None:
    """Refuse a secret: recipes are committed, and copied into run folders. The value is not shown.

    Raises:
        UsageError: the key's name, or the look of the value, says that it is one.
    """
    if isinstance(value, str) and value and (_SECRET_NAME.search(key) or _SECRET_VALUE.search(value)):
        what = f"{key!r} contains" if key else "this is"
        raise UsageError(
            f"{where}: {what} what looks like a secret; a recipe is no place for one",
            "put it into the environment variable that the teacher reads, as OPENAI_API_KEY, and leave it out here",
        )


def _mark(mark: Any) -> str:
    return "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"


_MISTAKES = (
    (
        "mapping values are not allowed",
        "a second `key: value` where there can be only one",
        "indent the lines of a section alike, and quote a text that contains `: `",
    ),
    (r"found character '\\t'", "a tab; YAML is indented with spaces", "replace the tab by spaces"),
    ("found character", "a text cannot begin with this character", "quote the text"),
    ("expected <block end>", "this line is not indented like those above it", "indent the keys of a section alike"),
    ("expected ',' or", "a `[` or `{` is not closed", "close it with `]` or `}`"),
    ("unexpected end of stream", "a quoted text is not closed", "close it with the quote that it begins with"),
    ("could not find expected ':'", "a line without a colon", "write `key: value`"),
    ("another document", "another document begins here", "a recipe is one document: leave `---` out"),
)


def _explain(error: MarkedYAMLError) -> tuple[str, str | None]:
    """A parser's error in words for people who write recipes, and how to fix it."""
    problem = str(error.problem or error.context or "not YAML")
    for pattern, message, hint in _MISTAKES:
        if re.search(pattern, problem):
            return message, hint
    return problem, None
