"""Cells of Parquet files that JSON cannot hold: binary data, numbers that are not finite, times beyond the calendar.

They are faults only in columns that training uses. Of other columns, the cells are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.dataset.rows import Row


@dataclass(frozen=True)
class Unstorable:
    """Stands in a row for such a cell; `what` describes it for an error message."""

    what: str


def left_out(rows: Sequence[Row]) -> tuple[str, ...]:
    """Remove such cells from normalised rows, and return a note for each column that had some."""
    counts: Counter[str] = Counter()
    for row in rows:
        for column in [name for name, value in row.items() if isinstance(value, Unstorable)]:
            counts[column] += 1
            del row[column]
    return tuple(
        f"In the column `{column}`, {count:,} values were left out, because JSON cannot hold them."
        for column, count in counts.items()
    )
