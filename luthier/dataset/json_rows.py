"""Read JSON Lines and JSON arrays piece by piece, so that no row over the limit is ever held in memory."""

from __future__ import annotations

import codecs
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from typing import Any, Final, NamedTuple

from luthier.dataset.errors import Faults, describe, shorten
from luthier.dataset.file_type import BOM
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

MAX_DEPTH: Final = 64
_CHUNK_BYTES: Final = 64 * 1024
_TRUNCATED: Final = "ends in the middle of a JSON value: the file looks truncated"


class Line(NamedTuple):
    number: int
    text: str
    last: bool


def lines(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, with line ends. Lines that are too long or not UTF-8 are faults and skipped."""
    for number in itertools.count(1):
        raw = stream.readline(limit + 1)
        if not raw:
            return
        if len(raw) > limit and not raw.endswith(b"\n"):
            while (piece := stream.readline(_CHUNK_BYTES)) and not piece.endswith(b"\n"):
                pass  # skip the rest of the line
            faults.add(f"line {number} {too_long(limit)}", number=number)
            continue
        try:
            text = (raw.removeprefix(BOM) if number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            faults.add(_not_utf8(number, error), number=number)
            continue
        if "\0" in text:
            faults.add(f"line {number} contains a zero byte: the file looks like binary data", number=number)
            continue
        yield Line(number, text, last=not stream.peek(1))


def jsonl_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each row with the number of its line; blank lines are skipped."""
    reader = _JsonReader()
    for line in lines(stream, limit, faults):
        text = line.text.strip().removeprefix("\ufeff")  # of a second file, where two were put together
        if not text:
            continue
        try:
            value, end = reader.decode(text, 0)
        except (ValueError, RecursionError) as error:
            faults.add(f"line {line.number} {_line_fault(error, last=line.last)}", number=line.number)
            continue
        if end < len(text):
            faults.add(
                f"line {line.number} continues after its JSON value: put each row on its own line", number=line.number
            )
        elif fault := reader.fault(value, text):
            faults.add(f"row {line.number}{fault}", number=line.number)
        else:
            yield line.number, value


def array_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield each element of a JSON array with its number, counted from 1.

    Raises DatasetError if the array itself is broken, because the rest cannot be parsed.
    """
    reader, window = _JsonReader(), _Window(stream, limit)
    window.skip()
    if window.next_character() == "]":
        raise DatasetError("the JSON array is empty")
    for number in itertools.count(1):
        value, text = window.take(reader, number)
        if fault := reader.fault(value, text):
            faults.add(f"row {number}{fault}", number=number)
        else:
            yield number, value
        match window.next_character():
            case ",":
                window.skip()
            case "]":
                window.skip()
                break
            case "":
                raise DatasetError(f"the file ends after row {number} without a closing bracket: it looks truncated")
            case other:
                raise DatasetError(f"a comma or a closing bracket is missing after row {number}, found {other!r}")
    match window.next_character():
        case "":
            return
        case "[":
            raise DatasetError(
                "the file has several JSON arrays. If each is a row, write it as an object that names its columns, "
                'such as {"prompt": …, "completion": …}'
            )
        case _:
            raise DatasetError("the file continues after the end of the JSON array")


def parse(text: str) -> Any:
    """Parse JSON text inside a row, as strictly as the rows themselves. Raises ValueError."""
    reader, text = _JsonReader(), text.strip()
    try:
        value, end = reader.decode(text, 0)
    except RecursionError as error:
        raise ValueError(_odd_json(error)) from error
    if end < len(text) or reader.oddity(value, text):
        raise ValueError("not one JSON value")
    return value


class _JsonReader:
    """A JSON decoder that detects what the standard forbids and Python's decoder accepts."""

    def __init__(self) -> None:
        self._not_finite: list[str] = []
        self._repeated: list[str] = []
        self._decoder = json.JSONDecoder(
            parse_constant=self._constant, parse_float=self._float, object_pairs_hook=self._object
        )

    def decode(self, text: str, start: int) -> tuple[Any, int]:
        self._not_finite.clear()
        self._repeated.clear()
        return self._decoder.raw_decode(text, start)

    def fault(self, value: Any, text: str) -> str | None:
        """Return what is wrong with a decoded row, to be appended to its number, or None."""
        return self.oddity(value, text) or (
            None if isinstance(value, dict) else f": expected an object, found {describe(value)}"
        )

    def oddity(self, value: Any, text: str) -> str | None:
        """Return what in the text just decoded cannot be stored, or None."""
        if self._not_finite:
            return f" contains {self._not_finite[0][:20]}, which is not a finite number"
        if self._repeated:
            return f" has the key {shorten(self._repeated[0])!r} twice in one object: which value counts is unclear"
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            return f" is nested deeper than {MAX_DEPTH} levels"
        if "\\ud" in text.lower() and _has_lone_surrogate(value):
            return r" contains half of a surrogate pair (\ud800 to \udfff), which is not a character"
        return None

    def _object(self, pairs: list[tuple[str, Any]]) -> Row:
        """Return the object, and remember the first key that it has twice: Python would keep the last value only."""
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self._repeated.append(next(key for key, count in counts.items() if count > 1))
        return found

    def _constant(self, name: str) -> float:
        self._not_finite.append(name)
        return 0.0

    def _float(self, digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else self._constant(digits)


class _Window:
    """The part of a JSON array that is in memory: a little more than one element."""

    def __init__(self, stream: BufferedReader, limit: int) -> None:
        self._pieces = _decoded(stream)
        self._limit = limit
        self._text = ""
        self._at = 0
        self._ended = False

    def next_character(self) -> str:
        """Return the next character that is not white space, without consuming it; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._grow()

    def skip(self) -> None:
        """Consume the next character that is not white space."""
        self.next_character()
        self._at += 1

    def take(self, reader: _JsonReader, number: int) -> tuple[Any, str]:
        """Return the next element and its text. An incomplete element is decoded again with twice as much text."""
        self.next_character()
        while True:
            end = len(self._text)
            try:
                value, end = reader.decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # More text may fix an error near the end: the longest literal or escape has 12 characters.
                if self._ended or not (_at_end(error) or error.pos >= len(error.doc) - 12):
                    fault = _TRUNCATED if _at_end(error) else _not_json(error)
                    raise DatasetError(f"row {number} {fault}") from error
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"row {number} {_odd_json(error)}") from error
            if end - self._at > self._limit:
                raise DatasetError(f"row {number} {too_long(self._limit)}")
            if end < len(self._text) or self._ended:
                text, self._at = self._text[self._at : end], end
                return value, text
            self._grow()

    def _grow(self) -> None:
        kept = self._text[self._at :]
        pieces = list(itertools.islice(self._pieces, 1 + len(kept) // _CHUNK_BYTES))
        self._ended = not pieces
        self._text, self._at = kept + "".join(pieces), 0


def _decoded(stream: BufferedReader) -> Iterator[str]:
    decoder, line = codecs.getincrementaldecoder("utf-8-sig")(), 1
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DatasetError(_not_utf8(line + error.object.count(b"\n", 0, error.start), error)) from error
        line += text.count("\n")
        if text:
            yield text
        if not chunk:
            return


def _not_utf8(line: int, error: UnicodeDecodeError) -> str:
    if error.reason == "unexpected end of data":
        return f"line {line} ends in the middle of a character: the file looks truncated"
    return f"line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}): save the file as UTF-8"


def too_long(limit: int) -> str:
    """Return the fault of a row over the limit, to be appended to its number."""
    return f"is longer than {limit:,} bytes, the limit of one row (LUTHIER_MAX_ROW_BYTES)"


def _line_fault(error: Exception, *, last: bool) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return _odd_json(error)
    text = error.doc
    if last and text.startswith("{") and (_at_end(error) or not text.endswith("}")):
        return _TRUNCATED
    if _at_end(error):
        return "ends in the middle of a JSON value: put each row on its own line"
    return _not_json(error)


def _not_json(error: json.JSONDecodeError) -> str:
    return f"is not JSON: {error.msg}, found {error.doc[error.pos : error.pos + 20]!r}"


def _at_end(error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip())


def _odd_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"is nested deeper than {MAX_DEPTH} levels"
    return "contains an integer with thousands of digits"


def _depth(value: Any) -> int:
    """Return the levels of nesting of a list or an object, counted without recursion."""
    depth, level = 0, [value] if isinstance(value, dict | list) else []
    while level:
        depth += 1
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
    return depth


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
