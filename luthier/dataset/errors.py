"""Error messages about the content of dataset files."""

from __future__ import annotations

import math
from bisect import insort
from typing import Any, Final

from luthier.dataset.rows import blank
from luthier.dataset.unstorable import Unstorable
from luthier.errors import DatasetError

LISTED: Final = 20


class Faults:
    """Counts the faults of a file and keeps the 20 of the lowest row or line numbers for the error message."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[tuple[float, int, str]] = []

    def add(self, fault: str, *, number: float = math.inf) -> None:
        """Add a fault. `number` is that of its row or line; without one, it comes after all that have one."""
        self.count += 1
        insort(self._first, (number, self.count, fault))
        del self._first[LISTED:]

    @property
    def first(self) -> list[str]:
        return [fault for _, _, fault in self._first]

    def error(self, filename: str) -> DatasetError:
        match self.count:
            case 1:
                headline = f"{filename} has 1 fault:"
            case count if count <= LISTED:
                headline = f"{filename} has {count} faults:"
            case count:
                headline = f"{filename} has {count:,} faults. The first {LISTED}:"
        return DatasetError(headline, faults=self.first)


def unexpected(field: str, expected: str, found: Any) -> DatasetError:
    """Return the error of one field; the caller adds the number of the row."""
    return DatasetError(f"field `{field}`: expected {expected}, found {describe(found)}")


def describe(value: Any) -> str:
    """Describe a JSON value in a few words: `null`, `an empty string`, `the number 3`, `a list of 2`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {str(value)[:20]}"
        case "":
            return "an empty string"
        case str() if blank(value):
            return "a string of white space"
        case str():
            return f"the string {shorten(value)!r}"
        case []:
            return "an empty list"
        case list():
            return f"a list of {len(value)}"
        case Unstorable():
            return value.what
        case dict():
            return f"an object with {columns(value)}" if value else "an empty object"
        case _:
            return f"a value of type {type(value).__name__}"


def columns(names: Any) -> str:
    """Return at most 12 column names for a message, each in backquotes."""
    shown = [f"`{shorten(str(name))}`" for name in names]
    return ", ".join(shown[:12] + ([f"… ({len(shown)} in all)"] if len(shown) > 12 else []))


def shorten(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
