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

from luthier.dataset.errors import Faults, columns, shorten, unexpected
from luthier.dataset.json_rows import lines, too_long
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

_BATCH_ROWS: Final = 16  # small, because a few bytes of Parquet can unpack to a long text in every row


def csv_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each record under the header as a row of strings, counted from 1; blank lines are skipped."""
    csv.field_size_limit(limit)  # global to the process, but the service has only one limit
    records = csv.reader((line.text for line in lines(stream, limit, faults)), strict=True)
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
            faults.add(f"row {number} {_csv_fault(error, limit)}")
            continue
        if not fields:
            continue
        number += 1
        if len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        else:
            faults.add(f"row {number} has {len(fields)} fields, the header has {len(header)}")


def parquet_rows(path: Path, limit: int, max_bytes: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each row of a Parquet file, counted from 1. `max_bytes` limits the unpacked size of the file."""
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
                for index, row in enumerate(_as_python(batch, number)):
                    number += 1
                    if batch.nbytes > limit and batch.slice(index, 1).nbytes > limit:
                        faults.add(f"row {number} {too_long(limit)}")
                        continue
                    try:
                        value = {column: _json_value(cell, column) for column, cell in row.items()}
                    except DatasetError as fault:
                        faults.add(f"row {number}, {fault.message}")
                        continue
                    yield number, value
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"the Parquet file cannot be read: {shorten(str(error), 200)}") from error


def _as_python(batch: Any, number: int) -> list[Row]:
    try:
        rows: list[Row] = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise DatasetError(f"the Parquet file contains text that is not UTF-8, after row {number}") from error
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"the Parquet file cannot be read after row {number}: {shorten(str(error), 200)}") from error
    return rows


def _json_value(value: Any, field: str) -> Any:
    """Return a Parquet value as JSON: times as ISO 8601, and structs without nulls.

    Parquet gives every struct of a column the same keys, so a null there means that the row did not have the key.
    Raises DatasetError for binary data and for numbers that are not finite.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list():
            return [_json_value(item, field) for item in value]
        case dict():
            return {key: _json_value(item, field) for key, item in value.items() if item is not None}
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal() if value.is_finite():
            return float(value)
        case _:
            raise unexpected(field, "text, a finite number, a list or an object", value)


def _header(records: Iterator[list[str]]) -> list[str]:
    header = next((fields for fields in records if fields), [])
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise DatasetError(f"the header uses {separator!r} instead of commas: separate the columns by commas")
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
