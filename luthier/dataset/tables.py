"""Rows from CSV and Parquet files."""

from __future__ import annotations

import csv
import datetime
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from luthier.dataset import csv_dialect
from luthier.dataset.column_names import is_known
from luthier.dataset.errors import Faults, columns, shorten
from luthier.dataset.json_rows import lines, too_long
from luthier.dataset.rows import MOST_COLUMNS, Row, too_many_columns
from luthier.dataset.swallowed import Swallowed
from luthier.dataset.unstorable import Unstorable
from luthier.errors import DatasetError

LEAST_UNPACKED: Final = 2**26  # bytes that the rows of a small file may have
MOST_TIMES: Final = 100  # its own size, that the rows of a larger file may have
_RULE: Final = re.compile(r":?-{2,}:?")  # below the header of a table of Markdown
_BATCH_ROWS: Final = 16  # small, because a few bytes of Parquet can unpack to a long text in every row


class Unpacked:
    """Adds up the bytes that a file's rows have as JSON, which a few bytes of a file can make many.

    A column's name stands once in the file, but in each of its rows; and Parquet stores a repeated value only once.
    """

    def __init__(self, packed: int, max_bytes: int) -> None:
        """`packed`: the bytes of the file. `max_bytes`: what the rows of any file may have."""
        self._max_bytes = max_bytes
        self._limit = min(max_bytes, max(LEAST_UNPACKED, MOST_TIMES * packed))
        self._size = 0

    def add(self, size: int) -> None:
        """Raise DatasetError if the rows have more bytes than they may."""
        self._size += size
        if self._size <= self._limit:
            return
        if self._limit == self._max_bytes:
            raise DatasetError(f"the file unpacks to more than {self._max_bytes:,} bytes (LUTHIER_MAX_UPLOAD_BYTES)")
        raise DatasetError(
            f"the file unpacks to more than {self._limit:,} bytes, {MOST_TIMES} times its size: leave out what is the "
            "same in all rows, or upload the rows as JSON Lines"
        )


def csv_rows(
    stream: BufferedReader, limit: int, unpacked: Unpacked, faults: Faults, notes: list[str]
) -> Iterator[tuple[int, Row]]:
    """Yield each record under the header as a row of strings, counted from 1; records without a value are skipped.

    `notes`: sentences are added that say what may be read otherwise than it was meant.
    """
    csv.field_size_limit(limit)  # global to the process, but the service has only one limit
    dialect = csv_dialect.recognise(stream, limit)
    stream.seek(0)
    tape: list[str] = []  # the lines of the record that is read
    records = dialect.records(_taped((line.text for line in lines(stream, limit, faults)), tape))
    try:
        header = _header(records)
    except csv.Error as error:
        raise DatasetError(f"the header {_csv_fault(error, limit)}") from error
    names = len(json.dumps(header)) + 4 * len(header)  # with the marks around values
    number, repeated, swallowed = 0, list[int](), Swallowed(dialect.separator, len(header))
    while True:
        tape.clear()
        try:
            fields = next(records)
        except StopIteration:
            notes += (*swallowed.judge(faults), *_left_out(repeated, dialect))
            return
        except csv.Error as error:
            number += 1
            faults.add(f"row {number} {_csv_fault(error, limit)}", number=number)
            continue
        if not any(map(str.strip, fields)):
            continue
        number += 1
        if _is_header(fields, header):
            repeated.append(number)
            continue
        if number == 1 and len(header) > 1 and all(map(_RULE.fullmatch, filter(None, map(str.strip, fields)))):
            raise DatasetError("the file is a table of Markdown, not of CSV: write its rows as CSV or JSON Lines")
        swallowed.add(number, tape)
        unpacked.add(names + sum(map(len, fields)))
        try:
            yield number, _row(header, fields)
        except DatasetError as error:
            faults.add(f"row {number} {error.message}", number=number)


def parquet_rows(path: Path, limit: int, max_bytes: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each row of a Parquet file, counted from 1. `max_bytes` limits the bytes of all rows as JSON.

    Cells that JSON cannot hold are `Unstorable`, because columns that no training uses may have them. A few bytes can
    unpack to gigabytes before their size is known: files of others are read in a process with limits (parquet_process).
    """
    import pyarrow
    import pyarrow.parquet

    number, unpacked = 0, Unpacked(path.stat().st_size, max_bytes)
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names)
            groups = range(file.num_row_groups)
            Unpacked(path.stat().st_size, max_bytes).add(
                sum(file.metadata.row_group(group).total_byte_size for group in groups)
            )
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                cells = {name: _column(batch.column(index)) for index, name in enumerate(batch.schema.names)}
                for index in range(batch.num_rows):
                    number += 1
                    row = {name: column[index] for name, column in cells.items()}
                    size = len(json.dumps(row, ensure_ascii=False, default=str).encode(errors="replace"))
                    unpacked.add(size)
                    if size > limit:
                        faults.add(f"row {number} {too_long(limit)}", number=number)
                        continue
                    yield number, row
    except MemoryError:
        raise  # pyarrow's is an ArrowException too
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"the Parquet file cannot be read: {shorten(str(error), 200)}") from error


def _taped(texts: Iterable[str], tape: list[str]) -> Iterator[str]:
    """Yield the texts, and add each to the tape."""
    for text in texts:
        tape.append(text)
        yield text


def _check_names(names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise DatasetError(f"the file {too_many_columns(len(names))}")
    if repeated := _repeated(names):
        raise DatasetError(f"the file has the columns {columns(repeated)} more than once")


def _column(cells: Any) -> list[Any]:
    """Return the values of a column of a batch as JSON, with `Unstorable` for those that JSON cannot hold."""
    try:
        return [_storable(cell, cells.type) for cell in cells.to_pylist()]
    except (ValueError, OverflowError):  # of the whole column, so its good cells are read one by one
        return [_cell(cell) for cell in cells]


def _cell(cell: Any) -> Any:
    try:
        return _storable(cell.as_py(), cell.type)
    except UnicodeDecodeError:
        return Unstorable("text that is not UTF-8")
    except (ValueError, OverflowError) as error:
        return Unstorable(f"a value that cannot be read ({shorten(str(error), 80)})")


def _storable(value: Any, kind: Any) -> Any:
    try:
        return _json_value(value, kind)
    except TypeError as error:
        return Unstorable(str(error))


def _json_value(value: Any, kind: Any) -> Any:
    """Return a Parquet value of a type as JSON: times as ISO 8601, maps as objects, and structs without nulls.

    Parquet gives every struct of a column the same keys, so a null there means that the row did not have the key. A
    null in a map is data. Raises TypeError, saying what was found, for values that JSON cannot hold.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list() if hasattr(kind, "item_type"):  # a map
            return {str(key): _json_value(item, kind.item_type) for key, item in value}
        case list():
            return [_json_value(item, kind.value_type) for item in value]
        case dict():
            return {key: _json_value(item, kind.field(key).type) for key, item in value.items() if item is not None}
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal() if value.is_finite():
            return float(value)
        case float() | Decimal():
            raise TypeError("a number that is not finite")
        case _:
            raise TypeError(f"a value of type {type(value).__name__}")


def _row(header: list[str], fields: list[str]) -> Row:
    """Return the fields by the names of their columns. Columns without a name may be empty, or be one index of rows.

    Raises DatasetError for another number of fields, and for a value that several columns without a name leave unclear.
    """
    filled = fields + header[len(fields) :] if not any(header[len(fields) :]) else fields
    if len(filled) != len(header):
        raise DatasetError(f"has {len(fields)} fields, the header has {len(header)}")
    if all(header):
        return dict(zip(header, filled, strict=True))
    several = header.count("") > 1
    for place, (name, value) in enumerate(zip(header, filled, strict=True), start=1):
        if not name and value.strip() and several:
            raise DatasetError(f"has the value {shorten(value)!r} in column {place}, which the header does not name")
    return {name: value for name, value in zip(header, filled, strict=True) if name or value.strip()}


def _is_header(fields: list[str], header: list[str]) -> bool:
    """Return whether a record repeats the names of the columns, as where two files were put together."""
    if len(header) < 2 or not any(map(is_known, header)):
        return False
    return [_plain(name) for name in fields] == [_plain(name) for name in header]


def _plain(name: str) -> str:
    return name.replace("\ufeff", "").strip().casefold()


def _left_out(repeated: Sequence[int], dialect: csv_dialect.Dialect) -> Iterator[str]:
    """Yield what of a file is in none of its rows, as sentences. `repeated`: the records that repeat the header."""
    if repeated:
        listed = ", ".join(map(str, repeated[:5])) + (" …" if len(repeated) > 5 else "")
        yield f"{len(repeated):,} rows repeat the names of the columns, and are left out: row {listed}."
    if dialect.stripped:
        yield (
            "Spaces after a separator are ignored, because there are some before quotes: in "
            f"{dialect.stripped:,} fields without quotes too."
        )


def _header(records: Iterator[list[str]]) -> list[str]:
    header = [name.strip() for name in next((fields for fields in records if any(map(str.strip, fields))), [])]
    if len(header) > MOST_COLUMNS:
        raise DatasetError(f"the header {too_many_columns(len(header))}")
    if repeated := _repeated(header):
        raise DatasetError(f"the header names {columns(repeated)} more than once")
    return header


def _repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, sorted; an empty name is none."""
    return sorted(name for name, count in Counter(names).items() if name and count > 1)


def _csv_fault(error: csv.Error, limit: int) -> str:
    reason = str(error)
    if "field larger" in reason:
        return too_long(limit)
    if "unexpected end of data" in reason:
        return "has a quoted field that is never closed: the file looks truncated"
    if "new-line character" in reason:
        return "has a carriage return (\\r) in a line: save the file with the line ends of Windows or Unix"
    advice = ". Inside a field in quotes, write each quote twice" if "expected after" in reason else ""
    return f"is not CSV: {reason}{advice}"
