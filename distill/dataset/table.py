"""Training rows in Arrow: in memory, or on disk and mapped, so that a large data set needs little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from distill.dataset.soft_columns import from_batch, to_columns
from distill.types import IGNORE_INDEX, Example, Source

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Numbers: TypeAlias = npt.NDArray[np.int32]


class Examples(Sequence[Example]):
    """Labelled rows: a sequence of `Example`, made one by one as they are asked for.

    Args:
        table: columns `input_ids` and `labels` (list<int32>), `id`, `file` and `line`, `length` and `trained` (tokens),
            and those of `soft_columns`.
        rows: which of the table's rows, in order; None: all.
        path: the Arrow file that the table is mapped from, if any.

    Attributes:
        lengths: tokens of each row, (rows,) int32.
        trained: tokens of each row that count in the loss, (rows,) int32.
    """

    def __init__(self, table: pa.Table, rows: npt.NDArray[Any] | None = None, path: Path | None = None):
        import numpy as np

        self._table, self._rows, self._path = table, rows, path
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self.lengths = self._numbers("length")
        self.trained = self._numbers("trained")

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """Put examples into a table in memory."""
        import pyarrow as pa

        return cls(pa.Table.from_batches([to_batch(examples)]))

    @classmethod
    def open(cls, path: Path) -> Examples:
        """Map an Arrow file (stream format) of batches that `to_batch` made."""
        return cls(read_stream(path), path=path)

    def digest(self) -> str:
        """A SHA-256, in hex, of all tokens and labels in their order."""
        digest = sha256(b"" if self._rows is None else self._rows.tobytes())
        for column in ("length", "input_ids", "labels"):
            for batch in self._batches:
                values = batch.column(column)
                if column != "length":
                    values = values.flatten()
                digest.update(values.to_numpy().tobytes())
        if self.has_soft_targets:
            for name in self._table.column_names:
                if name.startswith("soft_"):
                    digest.update(_octets(self._table.column(name)))
        return digest.hexdigest()

    @property
    def has_soft_targets(self) -> bool:
        """Whether any row has soft targets."""
        column = self._table.column("soft_plain")
        return bool(column.null_count < len(column))

    def _numbers(self, column: str) -> Numbers:
        numbers: Numbers = self._table.column(column).to_numpy()
        return numbers if self._rows is None else numbers[self._rows]

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self) if self._rows is None else int(self._rows[index])
        number = int(self._starts.searchsorted(row, side="right")) - 1
        batch, at = self._batches[number], row - int(self._starts[number])
        file = batch.column("file")[at].as_py()
        return Example(
            input_ids=batch.column("input_ids")[at].values.to_numpy().tolist(),
            labels=batch.column("labels")[at].values.to_numpy().tolist(),
            id=batch.column("id")[at].as_py(),
            source=None if file is None else Source(file, batch.column("line")[at].as_py()),
            soft=from_batch(batch, at),
        )

    def select(self, rows: npt.NDArray[Any]) -> Examples:
        """Only these rows, in this order."""
        return Examples(self._table, rows if self._rows is None else self._rows[rows], self._path)

    def cut(self, max_length: int) -> Examples:
        """Rows cut to `max_length` tokens, in memory; their trained tokens are counted again."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._table if self._rows is None else self._table.take(pa.array(self._rows))
        for name in ("input_ids", "labels"):
            table = _with_column(table, name, pc.list_slice(table[name], 0, max_length))
        trained = np.fromiter((_trained(labels) for labels in _lists(table["labels"])), np.int32, len(table))
        if self.has_soft_targets:
            soft = [None if example.soft is None else example.soft.cut(max_length) for example in self]
            for name, column in to_columns(soft).items():
                table = _with_column(table, name, column)
        table = _with_column(table, "length", pc.cast(pc.list_value_length(table["input_ids"]), pa.int32()))
        return Examples(_with_column(table, "trained", pa.array(trained)))

    def dataset(self) -> datasets.Dataset:
        """The columns `input_ids` and `labels` as a data set of the `datasets` library, mapped where this is."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        whole = Dataset(InMemoryTable(self._table)) if self._path is None else Dataset.from_file(str(self._path))
        return (whole if self._rows is None else whole.select(self._rows)).select_columns(["input_ids", "labels"])


def read_stream(path: Path) -> pa.Table:
    """Map an Arrow file (stream format) as a table."""
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def to_batch(examples: Sequence[Example]) -> pa.RecordBatch:
    """Examples as a batch of the columns that `Examples` reads."""
    import pyarrow as pa

    tokens, sources = pa.list_(pa.int32()), [example.source for example in examples]
    columns = {
        "input_ids": pa.array([example.input_ids for example in examples], tokens),
        "labels": pa.array([example.labels for example in examples], tokens),
        "id": pa.array([example.id for example in examples], pa.string()),
        "file": pa.array([source and source.file for source in sources], pa.string()),
        "line": pa.array([source and source.line for source in sources], pa.int32()),
        "length": pa.array([len(example.input_ids) for example in examples], pa.int32()),
        "trained": pa.array([example.trained_tokens for example in examples], pa.int32()),
        **to_columns([example.soft for example in examples]),
    }
    return pa.record_batch(columns)


def _octets(column: pa.ChunkedArray) -> bytes:
    """All values of a column of soft targets."""
    values = column.combine_chunks()
    values = values.fill_null(False) if values.type == "bool" else values.flatten()
    octets: bytes = values.to_numpy(zero_copy_only=False).tobytes()
    return octets


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _lists(column: pa.ChunkedArray) -> Iterator[Numbers]:
    for chunk in column.chunks:
        for row in chunk:
            yield row.values.to_numpy()


def _trained(labels: Numbers) -> int:
    return int((labels[1:] != IGNORE_INDEX).sum())
