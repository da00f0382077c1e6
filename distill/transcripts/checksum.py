"""A row's checksum: a file that rots on its disk, or that somebody edits, is noticed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from distill.files.jsonl import dumps
from distill.types import Source

CHECKSUM = "checksum"
"""The last key of a row: the CRC-32 of the row's JSON without it, as distill writes it, in hex."""

_SUM = re.compile("[0-9a-f]{8}")
_NOT_LINES = (".parquet", ".csv", ".tsv")


def sealed(row: Mapping[str, Any]) -> bytes:
    """A row's line of JSON with its checksum, without a newline."""
    line = dumps(row).encode()
    return line[:-1] + f', "{CHECKSUM}": "{zlib.crc32(line):08x}"}}'.encode()


def without_checksum(row: Mapping[str, Any], source: Source) -> tuple[dict[str, Any], bool]:
    """Take a row's checksum off.

    Args:
        row: as JSON gives it.
        source: where it was read; rows of tables and Python objects, whose types are not JSON's, are not compared.

    Returns:
        The row without its checksum, and whether it is as it was written; so is one that has none.
    """
    value = row.get(CHECKSUM)
    if not isinstance(value, str) or not _SUM.fullmatch(value):
        return dict(row), True
    bare = {key: item for key, item in row.items() if key != CHECKSUM}
    if source.file.startswith(("<", "hub:")) or source.file.endswith(_NOT_LINES):
        return bare, True
    try:
        return bare, zlib.crc32(dumps(bare).encode()) == int(value, 16)
    except (ValueError, RecursionError):  # a lone surrogate: distill never writes one
        return bare, False
