"""Texts that are rather leftovers of other programs: they are learned as they are, and a warning counts them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from luthier.dataset.errors import columns
from luthier.dataset.rows import COLUMNS, Row
from luthier.task import DataKind

_PLACEHOLDERS: Final = frozenset(  # for nothing, of pandas, SQL, Alpaca and spreadsheets
    {
        *("nan", "none", "null", "nil", "n/a", "#n/a", "<na>", "<none>", "<null>", "nat", "undefined", "\\n"),
        *("<noinput>", "<no input>", "noinput", "no input", "[none]", "[null]", "(none)", "(null)"),
        *("#name?", "#ref!", "#value!", "#div/0!", "#num!", "#null!", "#error!", "#spill!"),
    }
)
_LONGEST: Final = max(map(len, _PLACEHOLDERS))
_MANY: Final = 0.1  # of the rows
_LITERAL: Final = re.compile(  # and none of the words that begin so in LaTeX
    r"\\n(?!(abla|u|eq?|i|ot|otin|eg|ode|exists|mid|earrow|ew\w*|o\w+|ormal\w*|leq|geq|subseteq)(?![A-Za-z]))"
)
_SHORTEST: Final = 12  # characters of a prompt that an answer repeats


def notes(raw: Sequence[Row], normal: Sequence[Row], kind: DataKind, used: Collection[str]) -> Iterator[str]:
    """Yield what is odd about the texts, as sentences with counts. `used`: the columns that training uses."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in raw:
        for column, value in row.items():
            if _is_placeholder(value) and column in used:
                found[column].append(value.strip())
    for column, values in sorted(found.items()):
        yield (
            f"In {len(values):,} rows, {columns([column])} is only {values[0]!r}, which is read as a text. "
            "If it means nothing, leave it empty, or leave the row out."
        )
    if (count := sum(_repeats(row, kind) for row in normal)) >= max(1, _MANY * len(normal)):
        yield f"In {count:,} rows, the answer begins with the whole prompt, and so teaches to repeat it."
    yield from _marks([list(_texts(row, kind)) for row in normal])


def _is_placeholder(value: object) -> bool:
    return isinstance(value, str) and len(value) < 2 * _LONGEST and value.strip().casefold() in _PLACEHOLDERS


def _repeats(row: Row, kind: DataKind) -> bool:
    """Return whether the answers of a row start with its prompt, and go on."""
    answers = [row[column] for column in ("completion", "chosen", "rejected") if column in COLUMNS[kind]]
    if not answers:
        return False
    prompt = _said(row["prompt"], -1).strip()
    said = [_said(answer, 0).strip() for answer in answers]
    return len(prompt) >= _SHORTEST and all(text.startswith(prompt) and text != prompt for text in said)


def _said(value: str | list[Row], place: int) -> str:
    return value if isinstance(value, str) else str(value[place]["content"])


def _marks(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield in how many rows the texts have marks that stand for something else, or that stood for something."""
    many = max(1, _MANY * len(rows))
    if count := _rows_with(rows, "_x000D_"):
        yield f"In {count:,} rows, texts have `_x000D_`, which Excel writes for a line end. It is learned as text."
    if count := _rows_with(rows, "\ufffd"):
        yield f"In {count:,} rows, texts have the mark \ufffd for characters that another program could not read."
    if (count := _rows_with(rows, "\r\n")) >= many:
        yield f"In {count:,} rows, texts have the line ends of Windows (\\r\\n). They are learned as they stand there."
    literal = sum(any("\n" not in text and _LITERAL.search(text) for text in texts) for texts in rows)
    if 2 * literal >= len(rows):
        yield f"In {literal:,} rows, texts have a backslash and an n in place of a line end. It is learned as text."


def _rows_with(rows: Sequence[Sequence[str]], mark: str) -> int:
    return sum(any(mark in text for text in texts) for texts in rows)


def _texts(row: Row, kind: DataKind) -> Iterator[str]:
    for column in COLUMNS[kind]:
        value = row[column]
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (message["content"] for message in value)
