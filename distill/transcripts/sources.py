"""Data as users have it: files, hub data sets, lists of dicts, `datasets.Dataset`, data frames, all read as rows.

`as_sources` is the one entry: every function of the library that takes data calls it, so that the commands and the
Python API accept the same things.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from distill.errors import DataError, UsageError
from distill.files.atomic import sha256_of
from distill.files.plain_values import plain_row
from distill.files.rows import open_rows, rows_of
from distill.transcripts.rows import transcript_to_dict
from distill.types import Source, Transcript

if TYPE_CHECKING:
    import datasets
    import pandas

HUB = "hub:"
_STDIN = "<stdin>"

DataInput: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    "DataSource",
    "datasets.Dataset",
    "pandas.DataFrame",
    Sequence[Mapping[str, Any]],
    Sequence[Transcript],
]
"""One source of rows: a path (`-` is standard input), `hub:owner/name[/config][:split]`, a list of dicts or of
transcripts, a `datasets.Dataset`, a pandas or polars frame, or a pyarrow table."""

Data: TypeAlias = DataInput | Sequence[DataInput]
"""One source, or several that are read one after the other."""


class DataSource:
    """Rows, with a name for errors and manifests.

    Args:
        name: a path, a hub data set's `hub:…`, or `<list>` and the like for data in memory.
        read: gives the rows, from the first one, each with its source.
        path: the file they are read from, if any.
        rereadable: whether `read` may be called again; a pipe can be read only once.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Iterator[tuple[Source, dict[str, Any]]]],
        path: Path | None = None,
        rereadable: bool = True,
    ):
        self.name, self.path, self.rereadable = name, path, rereadable
        self._read = read
        self._digest: str | None = None

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"DataSource({self.name!r})"

    def rows(self) -> Iterator[tuple[Source, dict[str, Any]]]:
        """Read the rows, from the first one.

        Raises:
            DataError: there are none that can be read, or a row is malformed; names file and line.
        """
        return self._read()

    def digest(self) -> str:
        """The SHA-256 of the content, in hex: of a file's bytes, or of the rows as JSON. A pipe's is random."""
        if not self.rereadable:
            return os.urandom(32).hex()
        if self.path is not None:
            return sha256_of(self.path)
        if self._digest is None:
            digest = hashlib.sha256()
            for _, row in self.rows():
                digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
            self._digest = digest.hexdigest()
        return self._digest


def as_sources(data: Data) -> tuple[DataSource, ...]:
    """Turn what the user handed over into sources of rows.

    Args:
        data: one source or a sequence of them, see `DataInput`. A sequence of dicts or transcripts is one source.

    Raises:
        UsageError: it is nothing that rows can be read from; names the type.
    """
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)) and not _is_rows(data):
        return tuple(_source(one) for one in data)
    return (_source(data),)


def _is_rows(data: Sequence[Any]) -> bool:
    return len(data) > 0 and isinstance(data[0], (Mapping, Transcript))


def _source(data: Any) -> DataSource:
    if isinstance(data, DataSource):
        return data
    if isinstance(data, (str, os.PathLike)):
        name = os.fspath(data)
        return _hub(name) if name.startswith(HUB) else _file(name)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        return DataSource("<list>", lambda: _listed(data))
    made = _table(data)
    if made is None:
        raise UsageError(
            f"rows cannot be read from {type(data).__name__}",
            "give a path, hub:owner/name, a list of dicts, a datasets.Dataset or a data frame",
        )
    return made


def _file(name: str) -> DataSource:
    if name == "-":
        return DataSource(_STDIN, lambda: rows_of(sys.stdin.buffer, _STDIN), rereadable=False)
    path = Path(name)
    return DataSource(name, lambda: open_rows(path), path, rereadable=path.is_file() or not path.exists())


def _listed(rows: Sequence[Any]) -> Iterator[tuple[Source, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        source = Source("<list>", number)
        if isinstance(row, Transcript):
            yield row.source or source, transcript_to_dict(row)
        elif isinstance(row, Mapping):
            yield source, plain_row(row, str(source))
        else:
            raise DataError(f"{source}: {type(row).__name__}, not a dict", "give a list of dicts, one per conversation")


def _table(data: Any) -> DataSource | None:
    """A data set or a frame, told by its methods: none of these libraries is imported for it."""
    kind = f"<{type(data).__name__}>"
    if isinstance(data, Mapping) and all(hasattr(split, "with_format") for split in data.values()):
        splits = ", ".join(repr(name) for name in data)
        raise UsageError("a DatasetDict holds several splits", f"give one of them: data[…] with {splits}")
    if hasattr(data, "column_names") and hasattr(data, "with_format"):  # datasets.Dataset
        return DataSource(kind, lambda: _numbered(kind, _dataset_rows(data)))
    if hasattr(data, "itertuples") and hasattr(data, "to_dict"):  # pandas.DataFrame
        return DataSource(kind, lambda: _numbered(kind, _frame_rows(data)))
    if hasattr(data, "__arrow_c_stream__"):  # polars, pyarrow, DuckDB
        return DataSource(kind, lambda: _numbered(kind, _arrow_rows(data)))
    return None


def _numbered(name: str, rows: Iterable[Mapping[Any, Any]]) -> Iterator[tuple[Source, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        source = Source(name, number)
        yield source, plain_row(row, str(source), drop_nulls=True)


def _dataset_rows(data: Any) -> Iterator[Mapping[str, Any]]:
    """Rows as they are stored: nothing is decoded, so that images and audio need no library and are refused by name."""
    if not hasattr(data, "num_rows"):  # an IterableDataset
        yield from data
        return
    for batch in data.with_format("arrow").iter(batch_size=1000):
        yield from batch.to_pylist()


def _frame_rows(frame: Any) -> Iterator[Mapping[Any, Any]]:
    for start in range(0, len(frame), 1000):
        yield from frame.iloc[start : start + 1000].to_dict("records")


def _arrow_rows(data: Any) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    for batch in pa.RecordBatchReader.from_stream(data):
        yield from batch.to_pylist()


def _hub(name: str) -> DataSource:
    """A data set of the Hugging Face hub, by `hub:owner/name[/config][:split]`; it is loaded when it is first read."""
    where, _, split = name.removeprefix(HUB).partition(":")
    parts = where.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{name!r} is not a data set of the hub", "write hub:owner/name, hub:owner/name:split")
    config = parts.pop() if len(parts) == 3 else None
    loaded: list[Any] = []

    def read() -> Iterator[tuple[Source, dict[str, Any]]]:
        if not loaded:
            loaded.append(_load_hub("/".join(parts), config, split or "train", name))
        return _numbered(name, _dataset_rows(loaded[0]))

    return DataSource(name, read)


def _load_hub(repository: str, config: str | None, split: str, name: str) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(repository, config, split=split)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "write hub:owner/name/config:split, as its page on the hub has them; a private one needs `hf auth login`"
        raise DataError(f"{name}: {reason}", hint) from None
