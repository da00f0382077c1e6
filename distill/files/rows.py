"""Files of rows in any common format: JSON lines, JSON, CSV, TSV and Parquet, plain or compressed.

Prompts and training data are read by the same reader. What a file is, its first bytes decide; only CSV and TSV are
known by their names.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

from distill.errors import DataError
from distill.files.json_values import read_array, read_objects
from distill.files.jsonl import parse_rows
from distill.files.nearby import did_you_mean
from distill.files.plain_values import plain_row
from distill.types import Source

Row = dict[str, Any]
Rows = Iterator[tuple[Source, Row]]
FileFormat = Literal["jsonl", "json", "json-array", "csv", "tsv", "parquet", "text"]

_PEEK = 4096
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_ENDINGS = (".gz", ".zst", ".bz2", ".xz")
_OTHER_FORMATS = {
    b"PK\x03\x04": ("a zip archive (or a spreadsheet)", "unpack it, or save the sheet as CSV"),
    b"ARROW1": ("an Arrow file", "save it as Parquet"),
    b"SQLite format 3": ("an SQLite database", "export its rows as JSON lines or CSV"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
}
_JSON_COLUMNS = ("messages", "conversations", "conversation", "turns", "tools", "functions", "history", "metadata")
_TEXT_COLUMNS = ("prompt", "completion", "response", "instruction", "input", "output", "question", "answer", "text")


def open_rows(path: str | Path) -> Rows:
    """Read a file's rows.

    Args:
        path: JSON lines, one JSON array of objects, objects over several lines, CSV or TSV with a header, or Parquet;
            any of them may be compressed with gzip, zstd, bzip2 or xz.

    Yields:
        Each row with its source: the line it starts in, or its number for Parquet.

    Raises:
        DataError: the file is missing, unreadable or of another format, or a row is malformed; names file and line.
    """
    try:
        with open(path, "rb") as file:
            yield from rows_of(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", did_you_mean(path, Path.is_file)) from None


def rows_of(file: IO[bytes], name: str) -> Rows:
    """As `open_rows`, from an open binary file; it need not be seekable. `name` is what errors call it."""
    with _damage(name):
        opened = decompressed(file)
        yield from _READERS[file_format(opened.peek(_PEEK)[:_PEEK], name)](opened, name)


def decompressed(file: IO[bytes]) -> io.BufferedReader:
    """A file's content, decompressed if it is compressed; the first bytes decide."""
    opened = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", file))
    head = opened.peek(8)[:8]
    kind = next((kind for magic, kind in _COMPRESSED.items() if head.startswith(magic)), None)
    if kind is None:
        return opened
    return io.BufferedReader(cast("io.RawIOBase", _OPENERS[kind](opened)))


def _open_gzip(file: IO[bytes]) -> IO[bytes]:
    import gzip

    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def _open_bz2(file: IO[bytes]) -> IO[bytes]:
    import bz2

    return bz2.BZ2File(file)


def _open_xz(file: IO[bytes]) -> IO[bytes]:
    import lzma

    return lzma.LZMAFile(file)


def _open_zstd(file: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    stream: IO[bytes] = pa.CompressedInputStream(file, "zstd")
    return stream


_OPENERS: Mapping[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "gzip": _open_gzip,
    "bz2": _open_bz2,
    "xz": _open_xz,
    "zstd": _open_zstd,
}


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Name the file whose compressed content is damaged or cut short."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise DataError(f"{name}: the compressed file is damaged: {error}", "copy or download it again") from None
    except OSError as error:
        if error.errno is not None:  # a failure of the disk
            raise
        raise DataError(f"{name}: the compressed file is damaged: {error}", "copy or download it again") from None


def file_format(head: bytes, name: str) -> FileFormat:
    """Tell what a file holds.

    Args:
        head: its first bytes, decompressed.
        name: its name: `.csv` and `.tsv` decide, `.jsonl`, `.ndjson` and `.json` rule text out.

    Raises:
        DataError: it is of a format that is not read; the hint says how to convert it.
    """
    for magic, (kind, hint) in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {kind}", hint)
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return "json-array"
    if start.startswith(b"{"):
        return "json" if start.partition(b"\n")[0].strip() == b"{" else "jsonl"
    ending = _ending(name)
    if ending in (".csv", ".tsv", ".tab"):
        return "csv" if ending == ".csv" else "tsv"
    return "jsonl" if ending in (".jsonl", ".ndjson", ".json") or not start else "text"


def _ending(name: str) -> str:
    """The file name's suffix, that of a compression left out."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in _ENDINGS else path.suffix


def looks_like_table(head: bytes) -> str | None:
    """Whether text looks like a table: `CSV` or `TSV` where its first line is a header with a well-known column.

    For files of plain prompts, one per line: a table given as one would be asked line by line.
    """
    header = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", "replace").strip().lower()
    for kind, delimiter in (("TSV", "\t"), ("CSV", ","), ("CSV", ";")):
        cells = [cell.strip().strip('"') for cell in header.split(delimiter)]
        if len(cells) > 1 and any(cell in (*_TEXT_COLUMNS, *_JSON_COLUMNS) for cell in cells):
            return kind
    return None


def _read_csv(file: io.BufferedReader, name: str) -> Rows:
    """CSV as spreadsheets save it: comma or semicolon, quoted cells may hold line breaks, an empty cell is null."""
    header = file.peek(_PEEK).partition(b"\n")[0]
    return _read_table(file, name, ";" if header.count(b";") > header.count(b",") else ",")


def _read_tsv(file: io.BufferedReader, name: str) -> Rows:
    return _read_table(file, name, "\t")


def _read_table(file: io.BufferedReader, name: str, delimiter: str) -> Rows:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(_decoded(file, name), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_header(header, name)
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield Source(name, line), _cells(header, cells, f"{name}:{line}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: {error}", "quote cells that hold quotes or line breaks") from None


def _decoded(lines: IO[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: {error}", "save the file as UTF-8") from None


def _check_header(header: list[str], name: str) -> None:
    twice = next((cell for cell in header if header.count(cell) > 1), None)
    if twice is not None:
        raise DataError(f"{name}:1: the column {twice!r} appears twice", "the first line must name each column once")


def _cells(header: list[str], cells: list[str], where: str) -> Row:
    if len(cells) > len(header):
        raise DataError(
            f"{where}: {len(cells)} cells, but {len(header)} columns", "quote cells that hold the delimiter"
        )
    row: Row = dict.fromkeys(header)
    for column, cell in zip(header, cells, strict=False):
        if cell:
            row[column] = json_cell(cell) if column in _JSON_COLUMNS else cell
    return row


def json_cell(cell: str) -> Any:
    """A cell that holds a list or an object as JSON, decoded; any other text stays as it is."""
    if cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _read_parquet(file: io.BufferedReader, name: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source: Any = file if file.seekable() else pa.BufferReader(file.read())
    try:
        batches = pq.ParquetFile(source).iter_batches(batch_size=1000)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield Source(name, number), plain_row(row, f"{name}:{number}", drop_nulls=True)
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: {str(error).splitlines()[0]}", "the Parquet file is damaged: write it again"
        ) from None


def _read_text(file: io.BufferedReader, name: str) -> Rows:
    kind = looks_like_table(file.peek(_PEEK))
    hint = f"name it .{kind.lower()}, if it is one" if kind else "give JSON lines, a JSON array, CSV, TSV or Parquet"
    raise DataError(f"{name} is text, not a file of rows" + (f"; it looks like {kind}" if kind else ""), hint)


_READERS: Mapping[FileFormat, Callable[[io.BufferedReader, str], Rows]] = {
    "jsonl": parse_rows,
    "json": lambda file, name: read_objects(file.read(), name),
    "json-array": lambda file, name: read_array(file.read(), name),
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
    "text": _read_text,
}
