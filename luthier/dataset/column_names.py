"""The names of columns, however they are spelt: files write `Prompt`, ` LABEL`, `System Prompt` or `systemPrompt`.

Marks that nobody sees in a name, such as a byte order mark or a zero-width space, do not count either.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from luthier.dataset import labels, question_parts
from luthier.dataset.errors import columns, shorten
from luthier.dataset.formats import FORMATS, HISTORY, SYSTEM
from luthier.dataset.media import MEDIA
from luthier.dataset.rows import MOST_COLUMNS, Row, too_many_columns
from luthier.errors import DatasetError

_KNOWN: Final = {column for known in FORMATS for column in known.used} | {
    *SYSTEM,
    HISTORY,
    *MEDIA,
    *labels.COLUMNS,
    *question_parts.PASSAGES,
    *question_parts.CHOICES,
    *question_parts.INPUTS,
}
_LISTED: Final = 12
_MARKS: Final = re.compile(r"[\W_\ufeff\u200b-\u200f\u2060]+")


def _letters(name: str) -> str:
    """Return the letters and digits of a name in lower case: what tells names apart."""
    return _MARKS.sub("", name).lower()


_BY_LETTERS: Final = {_letters(name): name for name in _KNOWN}


class KnownNames:
    """Gives the columns that training may use their names, and remembers which a file spells otherwise."""

    def __init__(self) -> None:
        self._renamed: dict[str, str] = {}

    def given_to(self, row: Row) -> Row:
        """Return the row with known names.

        Raises DatasetError, naming the columns, if two of them are then the same: only one could be used. So it does
        for more than 10,000 columns.
        """
        if row.keys() <= _KNOWN:
            return row
        if len(row) > MOST_COLUMNS:
            raise DatasetError(f"columns {columns(row)}: the row {too_many_columns(len(row))}")
        renamed = _renamed(tuple(row))
        if not renamed:
            return row
        self._renamed |= renamed
        return {renamed.get(column, column): value for column, value in row.items()}

    def notes(self) -> tuple[str, ...]:
        """Return a note that says which columns have other names in the file; nothing if none has."""
        if not self._renamed:
            return ()
        first = sorted(self._renamed.items())[:_LISTED]
        read = ", ".join(f"`{shorten(_visible(column))}` as `{name}`" for column, name in first)
        return (f"The case of column names does not matter, nor do spaces and marks. Read here: {read}.",)


def is_known(name: str) -> bool:
    """Return whether training knows a column of this name."""
    return _letters(name) in _BY_LETTERS


def _visible(name: str) -> str:
    """Return a name with escapes such as \\u200b for the characters that nobody sees."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in name)


def in_lower_case(row: Row) -> Row:
    """Return the row with all of its columns in lower case. Of two that are then the same, the last one counts."""
    if all(column == column.lower() for column in row):
        return row
    return {column.strip().lower(): value for column, value in row.items()}


@lru_cache(maxsize=64)
def _renamed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the columns to rename, with their known names."""
    spelt: dict[str, list[str]] = {}
    for column in names:
        if (name := _BY_LETTERS.get(_letters(column))) is not None:
            spelt.setdefault(name, []).append(column)
    if twice := next((found for found in spelt.values() if len(found) > 1), None):
        raise DatasetError(
            f"columns {columns(twice)}: their names differ only by case, spaces or marks, so only one could be read. "
            "Rename or remove the others"
        )
    return {column: name for name, [column] in spelt.items() if column != name}
