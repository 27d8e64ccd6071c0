"""Read a user's dataset file: check every row, list the first faults, and normalise the rows to TRL's columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthier.dataset.errors import Faults
from luthier.dataset.file_type import Container, recognise
from luthier.dataset.formats import ALPACAS, Format, check_shape, detect, plain_if_single_turn
from luthier.dataset.json_rows import array_rows, jsonl_rows
from luthier.dataset.plain_text import PIECE_CHARACTERS, text_rows
from luthier.dataset.rows import Row
from luthier.dataset.tables import csv_rows, parquet_rows
from luthier.errors import DatasetError
from luthier.task import DataKind

MIN_ROWS: Final = 10


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A file's rows in TRL's columns; `format` names the columns of the file."""

    kind: DataKind
    format: str
    rows: list[Row]


def load(path: Path, filename: str, *, max_row_bytes: int, max_bytes: int = 2**30) -> Loaded:
    """Read a dataset file that the user named `filename`.

    Accepted are JSON Lines, JSON arrays, CSV, Parquet, plain text and Markdown, in UTF-8. The whole file is checked.
    `max_row_bytes` limits the size of one row, and `max_bytes` the unpacked size of a compressed file. Rows are
    numbered from 1; in JSON Lines the number of a row is that of its line.

    Raises DatasetError with the first 20 faults (the first one of each row), for fewer than 10 rows, and for unpaired
    preference labels that are all equal.
    """
    container = recognise(path, filename)
    faults = Faults()
    found: Format | None = None
    rows: list[Row] = []
    try:
        for number, row in _numbered_rows(path, container, max_row_bytes, max_bytes, faults):
            try:
                found = found or detect(row)
                normal = found.normalise(row)
                if rows:
                    check_shape(normal, rows[0], found)
            except DatasetError as fault:
                faults.add(f"row {number}, {fault.message}")
                if found is None:
                    break
            else:
                if not faults.count:
                    rows.append(normal)
    except DatasetError as broken:
        faults.add(broken.message)
    if faults.count:
        raise faults.error(filename)
    if found is None or len(rows) < MIN_ROWS:
        raise _too_few(filename, container, len(rows))
    if found.kind is DataKind.UNPAIRED and len({row["label"] for row in rows}) < 2:
        verdict = "desirable" if rows[0]["label"] else "undesirable"
        raise DatasetError(f"{filename} has only {verdict} rows. KTO needs desirable and undesirable ones.")
    return Loaded(kind=found.kind, format=found.name, rows=plain_if_single_turn(rows) if found in ALPACAS else rows)


def _numbered_rows(
    path: Path, container: Container, max_row_bytes: int, max_bytes: int, faults: Faults
) -> Iterator[tuple[int, Row]]:
    if container is Container.PARQUET:
        yield from parquet_rows(path, max_row_bytes, max_bytes, faults)
        return
    with path.open("rb") as stream:
        match container:
            case Container.JSONL:
                yield from jsonl_rows(stream, max_row_bytes, faults)
            case Container.JSON:
                yield from array_rows(stream, max_row_bytes, faults)
            case Container.CSV:
                yield from csv_rows(stream, max_row_bytes, faults)
            case Container.TEXT:
                yield from text_rows(stream, max_row_bytes, faults)


def _too_few(filename: str, container: Container, count: int) -> DatasetError:
    if container is Container.TEXT:
        found = f"gives only {count} pieces of about {PIECE_CHARACTERS:,} characters"
    else:
        found = f"has only {count} rows"
    return DatasetError(f"{filename} {found}. At least {MIN_ROWS} are needed for training, validation and test.")
