"""Records of a CSV file that a stray quote made of several lines: each of these looks like a record of its own.

A quote that opens at the beginning of a field, and that nobody meant to open it, encloses everything up to the next
quote, which may stand many lines below. Such a record is correct CSV. Only its lines tell.
"""

from __future__ import annotations

import re
from typing import Final

from luthier.dataset.errors import Faults

_QUOTED: Final = re.compile(r'"[^"]*"')  # may contain any separator
_SURE: Final = 3  # lines: a text of two lines may have a separator in each of them
_FEW: Final = 0.1  # of the records; where more are like that, texts of several lines are rather usual
_LISTED: Final = 5


class Swallowed:
    """Looks at the lines of each record, and finds those that are several records."""

    def __init__(self, separator: str, columns: int) -> None:
        self._separator = separator
        self._inside = columns - 1
        self._records = 0
        self._long = 0
        self._found: list[tuple[int, int]] = []

    def add(self, number: int, lines: list[str]) -> None:
        """Look at a record. `lines`: as they stand in the file."""
        self._records += 1
        self._long += len(lines) > 1
        if len(lines) > 1 and self._inside and all(map(self._is_record, lines)):
            self._found.append((number, len(lines)))

    def judge(self, faults: Faults) -> tuple[str, ...]:
        """Add a fault for each record of many such lines if no other record has several; else return a note."""
        if len(self._found) > _FEW * self._records:
            return ()
        sure = [(number, count) for number, count in self._found if count >= _SURE]
        if sure and len(self._found) == self._long:
            for number, count in sure:
                faults.add(
                    f"row {number} contains {count} lines with the same number of separators: a quote before them is "
                    "rather a part of the text. Write it twice, and put the field in quotes",
                    number=number,
                )
            return ()
        if not self._found:
            return ()
        shown = ", ".join(f"row {number} ({count} lines)" for number, count in self._found[:_LISTED])
        return (
            f"In {len(self._found):,} rows, text in quotes goes over several lines that each look like a row: {shown}. "
            "If they are rows, a quote is missing or too many.",
        )

    def _is_record(self, line: str) -> bool:
        return _QUOTED.sub("", line).count(self._separator) == self._inside
