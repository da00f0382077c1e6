"""Prompt files: JSONL rows, or text with one prompt a line; read row by row, as often as needed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from distill.errors import DataError
from distill.files.jsonl import dumps, parse_rows
from distill.files.text import check_text
from distill.transcripts.rows import message_to_dict, parse_message
from distill.types import Message, Prompt, Source

_SHAPE = "a row has one of `prompt` (text), `messages`, or `turns` (a list of texts, asked one after the other)"


@dataclass(frozen=True, slots=True)
class PromptFile:
    """An open prompt file. `read` may be called again: memory never holds more than one row."""

    name: str
    file: IO[bytes]
    jsonl: bool

    def read(self, system: str | None = None, limit: int | None = None) -> Iterator[Prompt]:
        """Read the prompts, from the first one.

        Args:
            system: a system message for the rows without one.
            limit: read only so many.

        Raises:
            DataError: a row is not a prompt; says file, line and what is wrong.
        """
        self.file.seek(0)
        rows = self._jsonl(system) if self.jsonl else self._text(system)
        return islice(rows, limit)

    def count(self, limit: int | None = None) -> int:
        """Check every row, and tell how many there are.

        Raises:
            DataError: a row is not a prompt, or there is none.
        """
        count = sum(1 for _ in self.read(limit=limit))
        if not count:
            raise DataError(f"{self.name}: no prompt in it", _SHAPE if self.jsonl else "write one prompt a line")
        return count

    def _jsonl(self, system: str | None) -> Iterator[Prompt]:
        for source, row in parse_rows(self.file, self.name):
            yield parse_prompt(row, source, system)

    def _text(self, system: str | None) -> Iterator[Prompt]:
        for number, line in enumerate(self.file, 1):
            source = Source(self.name, number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{source}: {error}", "save the file as UTF-8") from None
            if text.strip():
                yield Prompt(_with_system((Message("user", text),), system), source=source)


@contextmanager
def open_prompts(path: str | Path) -> Iterator[PromptFile]:
    """Open a prompt file.

    Args:
        path: `.jsonl`, or `.txt` with one prompt a line. `-` is standard input; it and files with other names are
            JSONL if they start with `{`, else text. What can be read only once is first copied to a temporary file.

    Raises:
        DataError: it cannot be read.
    """
    name = "<stdin>" if str(path) == "-" else str(path)
    try:
        file = _rereadable(path)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}", "give a .jsonl or .txt file, or - for stdin") from None
    with file:
        suffix = Path(path).suffix.lower()
        yield PromptFile(name, file, suffix in (".jsonl", ".ndjson") or (suffix != ".txt" and _starts_as_json(file)))


def _rereadable(path: str | Path) -> IO[bytes]:
    if str(path) != "-" and not Path(path).is_fifo() and not Path(path).is_char_device():
        return open(path, "rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - open_prompts closes it
    with open(sys.stdin.fileno() if str(path) == "-" else path, "rb", closefd=str(path) != "-") as file:
        shutil.copyfileobj(file, copy)
    return copy


def _starts_as_json(file: IO[bytes]) -> bool:
    file.seek(0)
    first = next((line for line in file if line.strip()), b"")
    return first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def parse_prompt(row: Mapping[str, Any], source: Source, system: str | None = None) -> Prompt:
    """Check one row and make a Prompt of it.

    Args:
        row: with `prompt`, `messages` or `turns`, and maybe `id`, `system`, `tools`, `metadata`.
        source: where it was read.
        system: a system message for a row without one.

    Raises:
        DataError: it is not a prompt; says where and what is wrong.
    """
    kinds = [key for key in ("prompt", "messages", "turns") if row.get(key) is not None]
    if len(kinds) != 1:
        has = " and ".join(f"`{kind}`" for kind in kinds) or "none of `prompt`, `messages` and `turns`"
        raise DataError(f"{source}: the row has {has}", _SHAPE)
    key = kinds[0]
    messages = _messages(row[key], source) if key == "messages" else _texts(row[key], key, source)
    row_system = row.get("system")
    if row_system is not None:
        if not isinstance(row_system, str) or not row_system.strip():
            raise DataError(f"{source}: `system` is not a text")
        if messages[0].role == "system":
            raise DataError(f"{source}: the row has `system` and a system message", "leave one of them out")
    tools, metadata, name = row.get("tools") or (), row.get("metadata") or {}, row.get("id")
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{source}: `tools` is not a list of objects")
    if not isinstance(metadata, dict):
        raise DataError(f"{source}: `metadata` is not an object")
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
        raise DataError(f"{source}: `id` is not a text")
    _check_text(row, source)
    first = messages if key == "messages" else messages[:1]
    return Prompt(
        messages=_with_system(first, row_system or system),
        followups=messages[len(first) :],
        tools=tuple(tools),
        id=None if name is None else str(name),
        metadata=metadata,
        source=source,
    )


def _messages(rows: Any, source: Source) -> tuple[Message, ...]:
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{source}: `messages` is not a list of messages", _SHAPE)
    messages = tuple(parse_message(row, f"{source}: message {n}") for n, row in enumerate(rows))
    if messages[-1].role not in ("user", "tool"):
        raise DataError(
            f"{source}: `messages` ends on the message of role {messages[-1].role!r}",
            "the last message must be the user's (or a tool's): the teacher answers it",
        )
    if not (messages[-1].content or "").strip():
        raise DataError(f"{source}: the last message is empty")
    return messages


def _texts(value: Any, key: str, source: Source) -> tuple[Message, ...]:
    """The user messages of `prompt` (one text) or `turns` (a list of texts)."""
    texts = [value] if key == "prompt" else value
    if not isinstance(texts, list) or not texts:
        raise DataError(f"{source}: `turns` is not a list of texts", _SHAPE)
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{source}: `{key}` holds {_kind(text)}, not text", _SHAPE)
        if not text.strip():
            raise DataError(f"{source}: `{key}` holds an empty text")
    return tuple(Message("user", text) for text in texts)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _check_text(row: Mapping[str, Any], source: Source) -> None:
    check_text(dumps(row), str(source))


def _with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    if system is None or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """Write a prompt as JSON: `messages` as first asked, then the `followups`, and the rest where it is set."""
    row: dict[str, Any] = {"messages": [message_to_dict(message) for message in prompt.messages]}
    if prompt.followups:
        row["followups"] = [message_to_dict(message) for message in prompt.followups]
    if prompt.tools:
        row["tools"] = [dict(tool) for tool in prompt.tools]
    if prompt.id is not None:
        row["id"] = prompt.id
    if prompt.metadata:
        row["metadata"] = dict(prompt.metadata)
    return row
