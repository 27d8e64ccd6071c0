"""The names of columns, whatever their case: files write `Prompt`, `LABEL` or ` System `."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from luthier.dataset import labels, question_parts
from luthier.dataset.errors import columns, shorten
from luthier.dataset.formats import FORMATS, HISTORY, MEDIA, SYSTEM
from luthier.dataset.rows import MOST_COLUMNS, Row, too_many_columns
from luthier.errors import DatasetError

_KNOWN: Final = {column for known in FORMATS for column in known.used} | {
    *SYSTEM,
    HISTORY,
    *MEDIA,
    *labels.COLUMNS,
    *question_parts.PASSAGES,
    *question_parts.CHOICES,
}
_LISTED: Final = 12


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
        read = ", ".join(f"`{shorten(column)}` as `{name}`" for column, name in first)
        return (f"The case of column names does not matter. Read here: {read}.",)


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
        if (name := column.strip().lower()) in _KNOWN:
            spelt.setdefault(name, []).append(column)
    if twice := next((found for found in spelt.values() if len(found) > 1), None):
        raise DatasetError(
            f"columns {columns(twice)}: their names differ only by case or spaces, so only one could be read. Rename "
            "or remove the others"
        )
    return {column: name for name, [column] in spelt.items() if column != name}
