"""Detect the format of a file from all of its rows, and list the values that are changed when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from luthier.dataset import labels, question_parts, single_messages
from luthier.dataset.errors import columns
from luthier.dataset.formats import FORMATS, SYSTEM, Format, Reading, accepted, is_open, labelled
from luthier.dataset.json_rows import parse
from luthier.dataset.messages import ROLES
from luthier.dataset.rows import COLUMNS, Row
from luthier.dataset.sharegpt import ROLES as SPEAKERS
from luthier.dataset.tool_calls import unanswered_calls
from luthier.errors import DatasetError
from luthier.task import DataKind

_CHATS: Final = ("messages", "conversations")
_LISTS: Final = (*_CHATS, "prompt", "completion", "chosen", "rejected")
_ANSWERS: Final = ("answer", "output", "target", "solution", "text")
_MOST_COLUMNS: Final = 100
_KNOWN: Final = {column for known in FORMATS for column in (*known.required, *known.optional)}
_SAID: Final = {"content", "tool_calls", "function_call"}
_OPEN: Final = "messages without an answer"  # stands among the columns of a row


def with_known_names(row: Row) -> Row:
    """Return the row with accepted columns in lower case, where it spells them otherwise, such as `Prompt`."""
    if row.keys() <= _KNOWN:
        return row
    named = {column: column.strip().lower() for column in row if column not in _KNOWN}
    renamed = {column: name for column, name in named.items() if name in _KNOWN and name not in row}
    return {renamed.get(column, column): value for column, value in row.items()} if renamed else row


def with_parsed_messages(row: Row) -> Row:
    """Return the row with messages that stand in it as JSON text as lists; other texts are unchanged."""
    parsed = {
        column: _list_in(value, of_messages=column not in _CHATS)
        for column in _LISTS
        if isinstance(value := row.get(column), str)
    }
    found = {column: value for column, value in parsed.items() if value is not None}
    return row | found if found else row


def detect(rows: Sequence[Row]) -> Reading:
    """Return how a file's rows are read. Raises DatasetError, naming the columns found, if no accepted format fits.

    The format is the first that at least half of the rows fit. A format of more columns is preferred even if only few
    rows have these: then the other rows are faults, instead of columns that are silently not used.
    """
    signatures = Counter(_signature(row) for row in rows)
    fitting = {known.name: sum(n for found, n in signatures.items() if _fits(known, found)) for known in FORMATS}
    half = [known for known in FORMATS if 2 * fitting[known.name] >= len(rows)]
    found = half[0] if half else max(FORMATS, key=lambda known: fitting[known.name])
    if not fitting[found.name]:
        raise DatasetError(
            f"columns {columns(rows[0]) or '(none)'}: no accepted format has these columns; {accepted()}"
        )
    wider = (known for known in FORMATS if set(known.required) > set(found.required) and fitting[known.name])
    found = next(wider, found)
    if found.kind in (DataKind.PAIRS, DataKind.CHAT) and (column := labels.column_of_labels(rows)):
        found = labelled(found, column)
    return _reading(rows, found)


def unused_columns(rows: Sequence[Row], reading: Reading) -> tuple[str, ...]:
    """Return the names of the columns that training does not use, in the order in which they appear; 100 at most."""
    seen: dict[str, None] = {}
    for row in rows:
        if row.keys() - seen.keys() - reading.used:
            seen |= {column: None for column in row if column not in reading.used}
    return tuple(seen)[:_MOST_COLUMNS]


def notes(raw: Sequence[Row], normal: Sequence[Row], reading: Reading, unused: Sequence[str]) -> tuple[str, ...]:
    """Return which values were changed when they were read, as sentences."""
    found: list[str] = []
    if reading.system and (count := sum(not labels.missing(row.get(reading.system)) for row in raw)):
        found.append(f"The column `{reading.system}` is the system message of {count:,} rows.")
    if reading.format.asked:
        found += question_parts.placed(reading.format.asked, reading.beside)
    if "prompt" in COLUMNS[reading.format.kind]:
        found += question_parts.missing(raw, normal, unused)
    for column in labels.COLUMNS:
        if column in reading.format.required:
            found += labels.reading((row[column] for row in raw), column)
    if reading.format.kind in (DataKind.PAIRS, DataKind.CHAT) and "label" in unused:
        found += labels.unread(raw)
    if reading.format.kind is DataKind.PROMPTS and (answers := [name for name in _ANSWERS if name in unused]):
        found.append(
            f"The rows are prompts for reinforcement learning, and only graders see {columns(answers)}. To train on "
            "such a column, call it `completion`."
        )
    if reading.format.kind is DataKind.TEXT:
        found += single_messages.note(unused)
    if reading.format.kind is DataKind.TEXT and (pairs := _pairs_in(unused)):
        found.append(
            f"The rows are read as plain text, and {columns(pairs)} are not used. To train on these, call the column "
            "`text` otherwise; `context` is put into the prompt."
        )
    moved = sum(
        bool(ids := _result_ids(read)) and _result_ids(row) != ids for row, read in zip(raw, normal, strict=True)
    )
    if moved:
        found.append(f"In {moved:,} rows, tool results were put in the order of their calls.")
    if unanswered := sum(_unanswered(row, reading.format.kind) for row in normal):
        found.append(f"{unanswered:,} tool calls have no result.")
    return tuple(found)


def _reading(rows: Sequence[Row], found: Format) -> Reading:
    system = next((name for name in SYSTEM if any(not labels.missing(row.get(name)) for row in rows)), None)
    if found.kind is DataKind.TEXT:
        system = None
    past = "history" in found.optional and any(row.get("history") for row in rows)
    beside = question_parts.columns_beside(rows, found.asked, found.required[1]) if found.asked else ()
    return Reading(format=found, chat=system is not None or past, system=system, beside=beside)


def _pairs_in(unused: Sequence[str]) -> tuple[str, ...]:
    """Return the first question and answer among columns that are not used; nothing without both."""
    pairs = (known.required for known in FORMATS if known.kind is DataKind.PAIRS)
    return next((pair for pair in pairs if set(pair) <= set(unused)), ())


def _signature(row: Row) -> frozenset[str]:
    """Return the names of the columns that are not null, and whether the messages end before an answer."""
    names = {column for column, value in row.items() if value is not None}
    return frozenset(names | {_OPEN} if is_open(row.get("messages")) else names)


def _fits(known: Format, signature: frozenset[str]) -> bool:
    if not signature.issuperset(known.required):
        return False
    match known.name:
        case "messages":
            return _OPEN not in signature
        case "open_messages":
            return _OPEN in signature
        case _:
            return True


def _list_in(text: str, *, of_messages: bool) -> list[Any] | None:
    """Return the list that a text is the JSON of; None for any other text. `of_messages`: only a list of messages."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = parse(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not value:
        return None
    return value if not of_messages or all(map(_is_message, value)) else None


def _is_message(value: Any) -> bool:
    """Return whether a JSON value has a known speaker and what it says; other objects are the text of an answer."""
    if not isinstance(value, dict):
        return False
    if value.get("role") in ROLES:
        return bool(value.keys() & _SAID)
    return value.get("from") in SPEAKERS and isinstance(value.get("value"), str)


def _result_ids(row: Row) -> list[Any]:
    """Return the ids of a row's tool results, in their order."""
    return [
        turn["tool_call_id"]
        for value in row.values()
        if isinstance(value, list)
        for turn in value
        if isinstance(turn, dict) and turn.get("tool_call_id") is not None
    ]


def _unanswered(row: Row, kind: DataKind) -> int:
    return sum(unanswered_calls(row[column]) for column in COLUMNS[kind] if isinstance(row[column], list))
