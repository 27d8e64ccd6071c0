"""Read a user's dataset file: check every row, list the first faults, and normalise the rows to TRL's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthier.dataset import detect, media, message_texts, not_rows, single_messages, text_tables
from luthier.dataset.column_names import KnownNames, in_lower_case
from luthier.dataset.errors import Faults
from luthier.dataset.file_type import Container, recognise
from luthier.dataset.formats import Reading, check_shape
from luthier.dataset.json_rows import array_rows, jsonl_rows
from luthier.dataset.line_ends import with_unix_line_ends
from luthier.dataset.message_keys import MessageKeys
from luthier.dataset.plain_text import PIECE_CHARACTERS, text_rows
from luthier.dataset.rows import Row
from luthier.dataset.tables import Unpacked, csv_rows, parquet_rows
from luthier.dataset.unstorable import left_out
from luthier.dataset.unused import fault as without_answers
from luthier.errors import DatasetError
from luthier.task import DataKind

MIN_ROWS: Final = 10
ParquetReader = Callable[[Path, int, int, Faults], Iterator[tuple[int, Row]]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A file's rows in TRL's columns; `format` names the columns of the file.

    `unused_columns` are kept in the rows, but no training uses them. `notes` say which values were
    changed when they were read. `warnings` are those of them that say what training does not use.
    """

    kind: DataKind
    format: str
    rows: list[Row]
    unused_columns: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def load(
    path: Path, filename: str, *, max_row_bytes: int, max_bytes: int = 2**30, parquet: ParquetReader = parquet_rows
) -> Loaded:
    """Read a dataset file that the user named `filename`.

    Accepted are JSON Lines, JSON arrays, CSV, Parquet, plain text and Markdown, in UTF-8. The whole file is read, as
    all rows decide its format. `max_row_bytes` limits the size of one row, and `max_bytes` that of all rows of a table.
    `parquet` reads Parquet files: the service does so in another process. Rows are numbered from 1; in
    JSON Lines the number of a row is that of its line.

    Raises DatasetError with the first 20 faults (the first one of each row), for fewer than 10 rows, and for unpaired
    preference labels that are all equal.
    """
    container = recognise(path, filename)
    if container is Container.TEXT and (wrong := text_tables.fault(path, filename)):
        raise DatasetError(wrong)
    faults, names, doubts = Faults(), KnownNames(), list[str]()
    limits = max_row_bytes, max_bytes
    numbered = _named(_numbered_rows(path, container, limits, faults, doubts, parquet), names, faults)
    if not numbered:
        raise faults.error(filename) if faults.count else _too_few(filename, container, 0)
    numbers, given = [number for number, _ in numbered], [row for _, row in numbered]
    if wrong := single_messages.fault(list(map(in_lower_case, given))) or not_rows.fault(given):
        faults.add(f"row {numbers[0]}, {wrong}", number=numbers[0])
        raise faults.error(filename)
    texts = message_texts.parsed(given)
    for index, wrong in texts.faults.items():
        faults.add(f"row {numbers[index]}, {wrong}", number=numbers[index])
    numbers = [number for index, number in enumerate(numbers) if index not in texts.faults]
    raw = [row for index, row in enumerate(texts.rows) if index not in texts.faults]
    if container is Container.CSV:
        raw = detect.without_empty(raw)
    try:
        reading = detect.detect(raw)
    except DatasetError as unknown:
        hint = " The first line of a CSV file names its columns." if container is Container.CSV else ""
        faults.add(f"row {numbers[0]}, {unknown.message}{hint}", number=numbers[0])
        raise faults.error(filename) from unknown
    unused = detect.unused_columns(raw, reading)
    if wrong := without_answers(raw, reading.format, unused):
        faults.add(f"row {numbers[0]}, {wrong}", number=numbers[0])
    rows = _normalised(numbers, raw, reading, texts, faults)
    kind = reading.format.kind
    keys = MessageKeys(rows, kind, reading.format.required[0])
    if not faults.count:
        _check_whole(numbers, rows, kind, keys, unused, faults)
    if faults.count:
        raise faults.error(filename)
    if len(rows) < MIN_ROWS:
        raise _too_few(filename, container, len(rows))
    if kind is DataKind.UNPAIRED and len({row["label"] for row in rows}) < 2:
        verdict = "desirable" if rows[0]["label"] else "undesirable"
        raise DatasetError(f"{filename} has only {verdict} rows. KTO needs desirable and undesirable ones.")
    warnings = (*doubts, *detect.warnings(raw, rows, reading, unused), *keys.note())
    notes = (*names.notes(), *texts.notes, *detect.notes(raw, rows, reading), *warnings, *left_out(rows))
    return Loaded(
        kind=kind, format=reading.format.name, rows=rows, unused_columns=unused, notes=notes, warnings=warnings
    )


def _named(rows: Iterator[tuple[int, Row]], names: KnownNames, faults: Faults) -> list[tuple[int, Row]]:
    """Return the numbered rows, with known names, until the file ends or breaks off."""
    found: list[tuple[int, Row]] = []
    try:
        for number, row in rows:
            try:
                found.append((number, names.given_to(row)))
            except DatasetError as fault:
                faults.add(f"row {number}, {fault.message}", number=number)
    except DatasetError as broken:
        faults.add(broken.message)
    return found


def _normalised(
    numbers: list[int], raw: list[Row], reading: Reading, texts: message_texts.Parsed, faults: Faults
) -> list[Row]:
    """Return the rows in TRL's columns, and add the first fault of each row that has one."""
    rows: list[Row] = []
    for number, row in zip(numbers, raw, strict=True):
        try:
            normal = reading.normalise(row)
            check_shape(normal, rows[0] if rows else normal, reading.format.kind)
        except DatasetError as fault:
            faults.add(f"row {number}, {texts.explained(fault.message)}", number=number)
        else:
            rows.append(normal)
    return rows


def _check_whole(
    numbers: list[int], rows: list[Row], kind: DataKind, keys: MessageKeys, unused: tuple[str, ...], faults: Faults
) -> None:
    """Add what is wrong with rows without faults that only all of them show."""
    if odd := keys.fault():
        faults.add(f"row {numbers[odd[0]]}, {odd[1]}", number=numbers[odd[0]])
    if wrong := media.fault(rows, kind, unused):
        faults.add(f"row {numbers[0]}, {wrong}", number=numbers[0])


def _numbered_rows(
    path: Path, container: Container, limits: tuple[int, int], faults: Faults, doubts: list[str], parquet: ParquetReader
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file. `limits`: the bytes of a row, and of all rows. `doubts`: notes of a table are added."""
    max_row_bytes, max_bytes = limits
    if container is Container.PARQUET:
        yield from parquet(path, max_row_bytes, max_bytes, faults)
        return
    with path.open("rb") as file:
        stream = with_unix_line_ends(file)
        match container:
            case Container.JSONL:
                yield from jsonl_rows(stream, max_row_bytes, faults)
            case Container.JSON:
                yield from array_rows(stream, max_row_bytes, faults)
            case Container.CSV:
                yield from csv_rows(stream, max_row_bytes, Unpacked(path.stat().st_size, max_bytes), faults, doubts)
            case Container.TEXT:
                yield from text_rows(stream, max_row_bytes, faults)


def _too_few(filename: str, container: Container, count: int) -> DatasetError:
    if container is Container.TEXT:
        found = f"gives only {count} pieces of about {PIECE_CHARACTERS:,} characters"
    else:
        found = f"has only {count} rows"
    return DatasetError(f"{filename} {found}. At least {MIN_ROWS} are needed for training, validation and test.")
