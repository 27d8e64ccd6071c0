"""Columns that say which part of the data a row belongs to: Luthier splits the rows itself, so a note names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from luthier.dataset.errors import shorten
from luthier.dataset.labels import missing
from luthier.dataset.rows import Row

_PART: Final = r"(train|test|val|valid|validation|eval|evaluation|dev|held_?out|hold_?out)"
_NAME: Final = re.compile(  # of a column that says it with true, false or a number
    rf"(.*[\W_])?(splits?|partition|subset|set|fold)|is_?(train|test|val|eval)\w*|((is|in)_)?{_PART}(_(set|split|data))?",
    re.IGNORECASE,
)
_FLAGS: Final = frozenset({"true", "false", "0", "1"})
_MOST_PARTS: Final = 12
_LONGEST: Final = 30  # characters of the name of a part
_LEARNED: Final = re.compile(r"(.*[\W_\d])?(train\w*|trn)([\W_\d].*)?", re.IGNORECASE)
_HELD_OUT: Final = re.compile(
    r"(.*[\W_\d])?(test\w*|tst|val|valid\w*|dev|eval\w*|held|hold|holdout|heldout)([\W_\d].*)?", re.IGNORECASE
)


def notes(rows: Sequence[Row], unused: Sequence[str]) -> Iterator[str]:
    """Yield for each column of parts how many rows each part has. `unused`: the columns that no training uses."""
    for column in (column for column in unused if has_parts(rows, column)):
        parts = _parts(rows, column)
        counts = ", ".join(f"{shorten(part, 20)} ({count:,} rows)" for part, count in parts.most_common(5))
        yield (
            f"All rows are split anew, whatever `{column}` says: {counts}. To keep its parts, upload the rows for "
            "validation as a file of their own, and leave out those for test."
        )


def has_parts(rows: Sequence[Row], column: str) -> bool:
    """Return whether a column says which part of the data a row belongs to."""
    parts = _parts(rows, column)
    return 1 < len(parts) <= _MOST_PARTS and _are_parts(column, parts)


def _parts(rows: Sequence[Row], column: str) -> Counter[str]:
    """Return the values of a column with their counts; few more than a column of parts has."""
    found: Counter[str] = Counter()
    for row in rows:
        value = row.get(column)
        if not missing(value):
            found[str(value).strip()[: _LONGEST + 1]] += 1
            if len(found) > _MOST_PARTS:
                break
    return found


def _are_parts(column: str, parts: Counter[str]) -> bool:
    """Return whether the values are parts of the data: all are so called, or the column is, and has true and false."""
    if column.lower() == "fold":
        return True
    if _NAME.fullmatch(column) and all(part.lower() in _FLAGS for part in parts):
        return True
    if not all(len(part) <= _LONGEST and (_LEARNED.fullmatch(part) or _HELD_OUT.fullmatch(part)) for part in parts):
        return False
    named = _NAME.fullmatch(column) is not None or any(map(_LEARNED.fullmatch, parts))
    return named and any(map(_HELD_OUT.fullmatch, parts))
