"""Error messages about the content of dataset files."""

from __future__ import annotations

from typing import Any, Final

from luthier.errors import DatasetError

LISTED: Final = 20


class Faults:
    """Counts the faults of a file and keeps the first 20 for the error message."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, fault: str) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(fault)

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
        case str() if not value.strip():
            return "a string of white space"
        case str():
            return f"the string {shorten(value)!r}"
        case []:
            return "an empty list"
        case list():
            return f"a list of {len(value)}"
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
