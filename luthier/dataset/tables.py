"""Rows from CSV and Parquet files."""

from __future__ import annotations

import csv
import datetime
import math
from collections.abc import Iterator
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from luthier.dataset.errors import Faults, columns, shorten
from luthier.dataset.json_rows import lines, too_long
from luthier.dataset.rows import Row
from luthier.dataset.unstorable import Unstorable
from luthier.errors import DatasetError

_BATCH_ROWS: Final = 16  # small, because a few bytes of Parquet can unpack to a long text in every row


def csv_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each record under the header as a row of strings, counted from 1; blank lines are skipped.

    The columns are separated by commas, or by tabs, semicolons or bars where the header has no comma. Spaces after a
    separator are ignored in a file that has them before opening quotes.
    """
    csv.field_size_limit(limit)  # global to the process, but the service has only one limit
    separator = _separator(stream, limit)
    found = _spaced_quotes(stream, limit, separator, skip=False)
    spaced = found > 0 and found > _spaced_quotes(stream, limit, separator, skip=True)
    texts = (line.text for line in lines(stream, limit, faults))
    records = csv.reader(texts, strict=True, delimiter=separator, skipinitialspace=spaced)
    try:
        header = _header(records)
    except csv.Error as error:
        raise DatasetError(f"the header {_csv_fault(error, limit)}") from error
    number = 0
    while True:
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            faults.add(f"row {number} {_csv_fault(error, limit)}", number=number)
            continue
        if not fields:
            continue
        number += 1
        if len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        else:
            faults.add(f"row {number} has {len(fields)} fields, the header has {len(header)}", number=number)


def parquet_rows(path: Path, limit: int, max_bytes: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each row of a Parquet file, counted from 1. `max_bytes` limits the unpacked size of the file.

    Cells that JSON cannot hold are `Unstorable`, because columns that no training uses may have them.
    """
    import pyarrow
    import pyarrow.parquet

    number, unpacked = 0, 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            _check_unpacked(sum(file.metadata.row_group(group).total_byte_size for group in groups), max_bytes)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                unpacked += batch.nbytes
                _check_unpacked(unpacked, max_bytes)
                cells = {name: _column(batch.column(index)) for index, name in enumerate(batch.schema.names)}
                for index in range(batch.num_rows):
                    number += 1
                    if batch.nbytes > limit and batch.slice(index, 1).nbytes > limit:
                        faults.add(f"row {number} {too_long(limit)}", number=number)
                        continue
                    yield number, {name: column[index] for name, column in cells.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"the Parquet file cannot be read: {shorten(str(error), 200)}") from error


def _column(cells: Any) -> list[Any]:
    """Return the values of a column of a batch as JSON, with `Unstorable` for those that JSON cannot hold."""
    try:
        return [_storable(cell) for cell in cells.to_pylist()]
    except (ValueError, OverflowError):  # of the whole column, so its good cells are read one by one
        return [_cell(cell) for cell in cells]


def _cell(cell: Any) -> Any:
    try:
        return _storable(cell.as_py())
    except UnicodeDecodeError:
        return Unstorable("text that is not UTF-8")
    except (ValueError, OverflowError) as error:
        return Unstorable(f"a value that cannot be read ({shorten(str(error), 80)})")


def _storable(value: Any) -> Any:
    try:
        return _json_value(value)
    except TypeError as error:
        return Unstorable(str(error))


def _json_value(value: Any) -> Any:
    """Return a Parquet value as JSON: times as ISO 8601, maps as objects, and structs without nulls.

    Parquet gives every struct of a column the same keys, so a null there means that the row did not have the key. A
    null in a map is data. Raises TypeError, saying what was found, for values that JSON cannot hold.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list() if value and all(isinstance(item, tuple) for item in value):  # a map
            return {str(key): _json_value(item) for key, item in value}
        case list():
            return [_json_value(item) for item in value]
        case dict():
            return {key: _json_value(item) for key, item in value.items() if item is not None}
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal() if value.is_finite():
            return float(value)
        case float() | Decimal():
            raise TypeError("a number that is not finite")
        case _:
            raise TypeError(f"a value of type {type(value).__name__}")


def _separator(stream: BufferedReader, limit: int) -> str:
    """Return the comma, or what separates the columns of a header without commas."""
    header = next((line.text for line in lines(stream, limit, Faults()) if line.text.strip()), "")
    stream.seek(0)
    return next((mark for mark in "\t;|" if "," not in header and mark in header), ",")


def _spaced_quotes(stream: BufferedReader, limit: int, separator: str, *, skip: bool) -> int:
    """Return how many fields start with spaces and then a quote, with or without skipping spaces after a separator.

    In `"a", "b"` the second field does unless spaces are skipped. In `"a"," ""b"" "` it does in both cases.
    """
    texts = (line.text for line in lines(stream, limit, Faults()))
    records, count = csv.reader(texts, delimiter=separator, skipinitialspace=skip), 0
    try:
        for fields in records:
            count += sum(field[:1] in (" ", "\t") and field.lstrip(" \t")[:1] == '"' for field in fields)
    except csv.Error:
        pass  # the rows are counted up to here; reading them again names the fault
    stream.seek(0)
    return count


def _header(records: Iterator[list[str]]) -> list[str]:
    header = [name.strip() for name in next((fields for fields in records if fields), [])]
    if repeated := {name for name in header if header.count(name) > 1}:
        raise DatasetError(f"the header names {columns(sorted(repeated))} more than once")
    return header


def _csv_fault(error: csv.Error, limit: int) -> str:
    reason = str(error)
    if "field larger" in reason:
        return too_long(limit)
    if "unexpected end of data" in reason:
        return "has a quoted field that is never closed: the file looks truncated"
    return f"is not CSV: {reason}"


def _check_unpacked(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DatasetError(f"the file unpacks to more than {max_bytes:,} bytes (LUTHIER_MAX_UPLOAD_BYTES)")
