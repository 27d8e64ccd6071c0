"""Detect the format of a file from all of its rows, and list the values that are changed when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from luthier.dataset import (
    contradictions,
    labels,
    left_out,
    media,
    odd_texts,
    question_parts,
    single_messages,
    tool_results,
    unused,
)
from luthier.dataset.answers import has_rounds
from luthier.dataset.errors import columns
from luthier.dataset.formats import CHATS, FORMATS, HISTORY, SYSTEM, Format, Reading, accepted, is_open, labelled
from luthier.dataset.rows import COLUMNS, Row
from luthier.errors import DatasetError
from luthier.task import DataKind

_MOST_COLUMNS: Final = 100
_OPEN: Final = "messages without an answer"  # stands among the columns of a row


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
    if found.kind is DataKind.TEXT:
        pairs = (known for known in FORMATS if known.kind is DataKind.PAIRS and 2 * fitting[known.name] >= len(rows))
        found = next((known for known in pairs if not _rendered(rows, known.required)), found)
    if found.kind in (DataKind.PAIRS, DataKind.CHAT) and (column := labels.column_of_labels(rows)):
        found = labelled(found, column)
    return _reading(rows, found)


def without_empty(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of CSV with null in the columns that are empty in all of them: CSV has no other null.

    The rows are unchanged where they would then be read without an answer: that is rather missing.
    """
    empty = {column for row in rows[:1] for column, value in row.items() if labels.missing(value)}
    empty = {column for column in empty if all(labels.missing(row.get(column)) for row in rows)}
    cleared = [row | dict.fromkeys(empty & row.keys()) for row in rows] if empty else list(rows)
    try:
        kind = detect(cleared).format.kind
    except DatasetError:
        return list(rows)
    return list(rows) if kind in (DataKind.TEXT, DataKind.PROMPTS) else cleared


def unused_columns(rows: Sequence[Row], reading: Reading) -> tuple[str, ...]:
    """Return the names of the columns that training does not use, in the order in which they appear; 100 at most."""
    seen: dict[str, None] = {}
    for row in rows:
        if row.keys() - seen.keys() - reading.used:
            seen |= {column: None for column in row if column not in reading.used}
    return tuple(seen)[:_MOST_COLUMNS]


def notes(raw: Sequence[Row], normal: Sequence[Row], reading: Reading) -> tuple[str, ...]:
    """Return which values were changed when they were read, as sentences."""
    found: list[str] = []
    for column in reading.system:
        count = sum(not labels.missing(row.get(column)) for row in raw)
        found.append(f"The column `{column}` is the system message of {count:,} rows.")
    if reading.history:
        found.append(
            f"The column `{HISTORY}` has earlier rounds of the chat, which are put before the prompt, unlearned."
        )
    if reading.format.asked:
        found += question_parts.placed(reading.format.asked, reading.beside)
    for column in labels.COLUMNS:
        if column in reading.format.required:
            found += labels.reading((row[column] for row in raw), column)
    if reading.format.kind is not DataKind.TEXT:
        found += tool_results.moved(raw, normal)
        found += tool_results.notes(normal, reading.format.kind)
    if reading.format.kind is DataKind.CHAT and (alone := sum(map(_without_user, normal))):
        found.append(f"{alone:,} chats have no message of the user: the model learns to speak first.")
    return tuple(found)


def warnings(raw: Sequence[Row], normal: Sequence[Row], reading: Reading, names: Sequence[str]) -> tuple[str, ...]:
    """Return what training leaves out although it may matter, as sentences. `names`: the columns that are not used."""
    found: list[str] = []
    texts = left_out.left_out(raw, normal, reading.format.kind, names)
    filled = [name for name in names if any(not labels.missing(row.get(name)) for row in raw)]
    if "prompt" in COLUMNS[reading.format.kind]:
        found += question_parts.missing(raw, normal, names)
    if reading.format.kind in (DataKind.PAIRS, DataKind.CHAT):
        for column in labels.PLAIN:
            found += labels.unread(raw, column) if column in names else ()
    found += unused.notes(raw, reading.format, names, texts)
    if reading.format.kind is DataKind.TEXT:
        found += single_messages.note(names)
    if reading.format.kind in (DataKind.PAIRS, DataKind.PREFERENCE, DataKind.UNPAIRED):
        found += single_messages.rounds(raw, names)
    found += _other_chats(raw, normal, reading, names)
    if reading.format.kind is DataKind.TEXT and (pairs := _pairs_in(filled)):
        found.append(
            f"The rows are read as plain text, and {columns(pairs)} are not used. To train on these, call the column "
            "`text` otherwise; `context` is put into the prompt."
        )
    if reading.format.kind not in (DataKind.TEXT, DataKind.PROMPTS) and (pairs := _pairs_in(filled)):
        read = columns(reading.format.required)
        found.append(f"The rows are read from {read}, and {columns(pairs)} are not used. Leave one of the two out.")
    found += contradictions.notes(raw, normal, reading.format.kind, names)
    found += odd_texts.notes(raw, normal, reading.format.kind, reading.used)
    found += media.notes(normal, reading.format.kind, names)
    said = " ".join(found)
    texts = {column: sample for column, sample in texts.items() if f"`{column}`" not in said}
    found += left_out.note(texts, reading.format.kind)
    return tuple(found)


def _reading(rows: Sequence[Row], found: Format) -> Reading:
    text = found.kind is DataKind.TEXT
    system = () if text else tuple(name for name in SYSTEM if any(not labels.missing(row.get(name)) for row in rows))
    past = found.begun and _has_history(rows, always=HISTORY in found.optional)
    beside = question_parts.columns_beside(rows, found.asked, found.required[1]) if found.asked else ()
    return Reading(format=found, chat=bool(system) or past, system=system, history=past, beside=beside)


def _rendered(rows: Sequence[Row], pair: Sequence[str]) -> bool:
    """Return whether the text of most rows contains their question and its answer: then it is a whole example."""
    whole = sum(all(str(row.get(column)).strip() in str(row.get("text")) for column in pair) for row in rows)
    return 2 * whole >= len(rows)


def _has_history(rows: Sequence[Row], *, always: bool) -> bool:
    """Return whether the rows have earlier rounds of a chat. `always`: whatever the column has is to be read as such.

    Otherwise it is, if at least half of what it has can be: `history` may as well be that of a patient.
    """
    given = [row[HISTORY] for row in rows if row.get(HISTORY) not in (None, [], "")]
    return bool(given) and (always or 2 * sum(map(has_rounds, given)) >= len(given))


def _other_chats(raw: Sequence[Row], normal: Sequence[Row], reading: Reading, names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on an unused column of chats that differ from those that are read; nothing without one."""
    for column in (name for name in CHATS if name in names and reading.format.kind is DataKind.CHAT):
        chats = [
            (_contents(row.get(column)), _contents(read["messages"])) for row, read in zip(raw, normal, strict=True)
        ]
        if count := sum(bool(other) and other != said for other, said in chats):
            read = columns(reading.format.required)
            return (
                f"The rows are read from {read}. In {count:,} of them, `{column}` has another chat, which is not used.",
            )
    return ()


def _contents(said: Any) -> list[str]:
    """Return what the messages of a chat say, but for those of the system."""
    turns = [turn for turn in said if isinstance(turn, dict)] if isinstance(said, list) else []
    return [
        str(turn.get("content", turn.get("value")) or "").strip()
        for turn in turns
        if turn.get("role", turn.get("from")) not in ("system", "developer")
    ]


def _without_user(row: Row) -> bool:
    return all(message["role"] != "user" for message in row["messages"])


def _pairs_in(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first question and answer among columns that are not used; nothing without both."""
    pairs = (known.required for known in FORMATS if known.kind is DataKind.PAIRS)
    return next((pair for pair in pairs if set(pair) <= set(names)), ())


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
