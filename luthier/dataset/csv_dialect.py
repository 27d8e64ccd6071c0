"""How the fields of a CSV file are separated and quoted, found from its content."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Final

from luthier.dataset.errors import Faults
from luthier.dataset.json_rows import lines

_DECLARED: Final = re.compile(r'"?sep=(.)"?[\s,;|]*', re.IGNORECASE)

_SINGLE: Final = re.compile(r"'[^']+'")  # a name in single quotes
_QUOTED: Final = re.compile(r'"[^"]*"')  # a name in quotes may contain any separator


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file is read.

    separator  stands between the fields
    declared   the first line is Excel's `sep=;` and names no columns
    spaced     spaces after a separator are ignored
    quoted     quotes around a field are not part of it
    quote      encloses fields
    stripped   in how many fields without quotes a space after the separator is ignored
    """

    separator: str
    declared: bool = False
    spaced: bool = False
    quoted: bool = True
    quote: str = '"'
    stripped: int = 0

    def records(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """Return the records of lines of text, the header first. The iterator raises csv.Error."""
        given = iter(texts)
        if self.declared:
            next((text for text in given if text.strip()), None)
        return csv.reader(
            given,
            strict=True,
            delimiter=self.separator,
            skipinitialspace=self.spaced,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
        )


def recognise(stream: BufferedReader, limit: int) -> Dialect:
    """Return the dialect of a file, which is read several times.

    The separator is what a line `sep=;` says; else the comma, or a tab, a semicolon or a bar where the header has no
    comma outside of quotes. Spaces after a separator are ignored in a file that has them before opening quotes. Single
    quotes enclose the fields of a file whose header has all of its names in them.
    """
    first = next((text for text in _texts(stream, limit) if text.strip()), "")
    if declared := _DECLARED.fullmatch(first):
        separator = declared[1]
    else:
        names = _QUOTED.sub("", first)
        separator = next((mark for mark in "\t;|" if "," not in names and mark in names), ",")
    plain = Dialect(separator=separator, declared=declared is not None)
    if separator == "\t" and _quotes_are_text(stream, limit, plain):
        return Dialect(separator=separator, declared=plain.declared, quoted=False)
    if not declared and all(_SINGLE.fullmatch(name) for name in first.strip().split(separator)):
        return Dialect(separator=separator, quote="'")
    quotes, others = _spaced_fields(stream, limit, plain)
    skipping = replace(plain, spaced=True, stripped=others)
    return skipping if quotes and quotes > _spaced_fields(stream, limit, skipping)[0] else plain


def _spaced_fields(stream: BufferedReader, limit: int, dialect: Dialect) -> tuple[int, int]:
    """Return how many fields start with spaces and then a quote, and how many below the header with spaces and a text.

    In `"a", "b"` the second field does unless spaces are skipped. In `"a"," ""b"" "` it does in both cases.
    """
    quotes, others = 0, 0
    records = csv.reader(_texts(stream, limit), delimiter=dialect.separator, skipinitialspace=dialect.spaced)
    try:
        for number, fields in enumerate(records):
            starts = [field.lstrip(" \t")[:1] for field in fields if field[:1] in (" ", "\t")]
            quotes += sum(start == '"' for start in starts)
            others += sum(start not in ("", '"') for start in starts) if number else 0
    except csv.Error:
        pass  # the rows are counted up to here; reading them again names the fault
    return quotes, others


def _quotes_are_text(stream: BufferedReader, limit: int, dialect: Dialect) -> bool:
    """Return whether each line of a file with tabs is a row as it stands, but more of them break CSV quoting than use
    it. Where fewer do, these are faulty rows of a file with CSV quoting."""
    rows = [text for text in _texts(stream, limit) if text.strip()]
    widths = {text.count(dialect.separator) for text in rows}
    if len(widths) != 1:
        return False
    width = widths.pop()
    opened = [text for text in rows if any(field.startswith('"') for field in text.split(dialect.separator))]
    good = sum(_is_record(text, width, dialect.separator) for text in opened)
    return len(opened) - good > good


def _is_record(line: str, width: int, separator: str) -> bool:
    """Return whether a line alone is a record with this number of separators by CSV's rules."""
    try:
        return [len(fields) - 1 for fields in csv.reader([line], strict=True, delimiter=separator)] == [width]
    except csv.Error:
        return False


def _texts(stream: BufferedReader, limit: int) -> Iterator[str]:
    """Yield the lines of the file from its start."""
    stream.seek(0)
    for line in lines(stream, limit, Faults()):
        yield line.text
