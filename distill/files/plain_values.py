"""Values of tables (Arrow, pandas, NumPy) as JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from distill.errors import DataError


def plain_row(row: Mapping[Any, Any], where: str, *, drop_nulls: bool = False) -> dict[str, Any]:
    """A table's row with the values that JSON has.

    Args:
        row: column → value.
        where: its `file:line`, for errors.
        drop_nulls: leave out the null fields of nested objects: a table gives all objects of a column the same fields.

    Raises:
        DataError: a column holds binary data or objects that are no values.
    """
    made = {}
    for column, value in row.items():
        try:
            made[str(column)] = _plain(value, drop_nulls)
        except (TypeError, RecursionError) as error:
            raise DataError(f"{where}: column {str(column)!r} holds {error}", "distill reads text; drop it") from None
    return made


def _plain(value: Any, drop_nulls: bool) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # a table's NaN is a missing value, and JSON has no infinity
    if isinstance(value, Mapping):
        items = {str(key): _plain(item, drop_nulls) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None} if drop_nulls else items
    if isinstance(value, (list, tuple)):
        return [_plain(item, drop_nulls) for item in value]
    if isinstance(value, (datetime, date, time)):
        return None if value != value else value.isoformat()  # pandas' NaT differs from itself
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("binary data")
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return _plain(value.tolist(), drop_nulls)
    raise TypeError(f"a {type(value).__name__}")
