"""Recognise tables and JSON Lines in files that are named as plain text: they would be trained on as prose."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from luthier.dataset.column_names import is_known
from luthier.dataset.file_type import BOM
from luthier.dataset.json_rows import parse

_HEAD_BYTES: Final = 64 * 1024
_SEPARATORS: Final = {",": ("comma", ".csv"), "\t": ("tab", ".tsv"), ";": ("semicolon", ".csv"), "|": ("bar", ".csv")}
_FEWEST_RECORDS: Final = 5
_LIKE_THE_FIRST: Final = 0.95  # of the records have as many fields
_PROSE_WORDS: Final = 3
_NAME_CHARACTERS: Final = 40


def fault(path: Path, filename: str) -> str | None:
    """Return what is wrong with a file of plain text that is rather a table or JSON Lines; None for any other text.

    A table has a header that names a column which training knows, or two columns of texts with a tab between them; and
    all lines have as many fields. Text with a table inside is no table.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).removeprefix(BOM)
    text = head.decode(errors="ignore")
    if len(head) == _HEAD_BYTES:
        text = text[: text.rfind("\n") + 1]  # the last line may not be whole
    lines = [line for line in text.splitlines() if line.strip()]
    objects = sum(map(_is_object, lines))
    if objects >= _FEWEST_RECORDS and objects >= _LIKE_THE_FIRST * (len(lines) - 1):
        return f"{filename} has JSON Lines after its first line, not plain text. Remove that line, and name it .jsonl."
    for separator, (name, ending) in _SEPARATORS.items():
        if _is_table(text, separator):
            return f"{filename} looks like a table with a {name} between its columns, not like plain text. " + (
                f"Name it {ending}, with the names of the columns in its first line."
            )
    return None


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse(line), dict)
    except ValueError:
        return False


def _is_table(text: str, separator: str) -> bool:
    if separator not in text.lstrip().partition("\n")[0]:
        return False
    try:
        records = [fields for fields in csv.reader(text.splitlines(keepends=True), delimiter=separator) if any(fields)]
    except csv.Error:
        return False
    if not records:
        return False
    width = len(records[0])
    alike = [fields for fields in records if len(fields) == width]
    if width < 2 or len(alike) <= _FEWEST_RECORDS or len(alike) < _LIKE_THE_FIRST * (len(records) - 1):
        return False
    return _is_header(records[0]) or (separator == "\t" and width == 2 and _are_texts(alike))


def _is_header(fields: Sequence[str]) -> bool:
    """Return whether a record has names of columns, one of which is known."""
    short = all(0 < len(name.strip()) <= _NAME_CHARACTERS for name in fields)
    return short and any(map(is_known, fields))


def _are_texts(records: Sequence[Sequence[str]]) -> bool:
    return all(2 * sum(len(r[place].split()) >= _PROSE_WORDS for r in records) > len(records) for place in (0, 1))
