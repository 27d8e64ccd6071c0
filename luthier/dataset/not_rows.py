"""Recognise a JSON object that holds a whole table, where one row is expected: pandas writes such files by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from luthier.dataset.errors import columns
from luthier.dataset.formats import FORMATS
from luthier.dataset.rows import Row

_REQUIRED: Final = {column for known in FORMATS for column in known.required}
_LINES: Final = 'Write each row as an object on its own line, as pandas does with orient="records" and lines=True'


def fault(rows: Sequence[Row]) -> str | None:
    """Return what is wrong if the file is one object with many rows in it; None for anything else."""
    if len(rows) != 1 or len(rows[0]) == 0:
        return None
    row = rows[0]
    if {"columns", "data"} <= row.keys() or (len(row) > 1 and _are_columns(list(row.values()))):
        return f"columns {columns(row)}: the file is a table written by its columns. {_LINES}"
    inside = next((column for column, value in row.items() if _are_rows(value)), None)
    if inside is not None and not row.keys() & _REQUIRED:
        return f"columns {columns(row)}: the rows seem to be in the list `{inside}`. Write that list itself"
    return None


def _are_columns(values: Sequence[Any]) -> bool:
    """Return whether values are the columns of a table: objects with the same keys, or lists of plain values."""
    match values[0]:
        case dict() as first:
            return len(first) > 1 and all(isinstance(value, dict) and value.keys() == first.keys() for value in values)
        case list() as first:
            return len(first) > 1 and all(
                isinstance(value, list)
                and len(value) == len(first)
                and not any(isinstance(cell, dict) and ("role" in cell or "from" in cell) for cell in value)
                for value in values
            )
        case _:
            return False


def _are_rows(value: Any) -> bool:
    """Return whether a value is a list of objects that are no messages."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, dict) and not item.keys() & {"role", "from"} for item in value)
    )
