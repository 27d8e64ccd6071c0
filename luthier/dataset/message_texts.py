"""Messages that stand in a row as JSON text, or as one object instead of a list.

A column of messages may hold its lists as text, as in a cell of CSV. But an answer may as well be meant to be such a
text. So a column is read as messages if all of its texts are that; a column of chats always is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from luthier.dataset.errors import unexpected
from luthier.dataset.formats import CHATS, FORMATS
from luthier.dataset.json_rows import parse
from luthier.dataset.messages import ROLES
from luthier.dataset.rows import Row
from luthier.dataset.sharegpt import CALLS
from luthier.dataset.sharegpt import ROLES as SPEAKERS

_FIELD: Final = re.compile(r"field `(\w+)")  # of a fault
_SAID: Final = {"content", "tool_calls", "function_call"}
_MAY_BE: Final = sorted({column for known in FORMATS for column in known.required} - {*CHATS, "text"})


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """Rows with lists of messages for their texts.

    `faults`: what is wrong, by the index of the row. `notes` say which columns were read so, or only nearly were.
    `columns`: those whose texts were read so, although they may be meant as texts.
    """

    rows: list[Row]
    faults: dict[int, str]
    notes: tuple[str, ...]
    columns: frozenset[str]

    def explained(self, fault: str) -> str:
        """Return a fault, and that the text was read as messages if it is about a column that was."""
        place = _FIELD.search(fault)
        if place is None or place[1] not in self.columns:
            return fault
        return (
            f"{fault}. The text in `{place[1]}` was read as JSON of messages, as in most rows: put a word before it if "
            "the text itself is to be learned"
        )


def parsed(rows: Sequence[Row]) -> Parsed:
    """Return the rows with messages that stand in them as text, or as one object, as lists; other values unchanged.

    Rows whose value is another text, in a column in which at least half of the texts are messages, are faults. Fewer
    are texts, and a note counts them.
    """
    found = [_chats(row) for row in rows]
    faults: dict[int, str] = {}
    notes: list[str] = []
    as_messages: set[str] = set()
    present = {column for row in rows for column in row}
    for column in (column for column in _MAY_BE if column in present):
        lists = {index: said for index, row in enumerate(found) if (said := _in(row.get(column))) is not None}
        if not lists:
            continue
        texts = [index for index, row in enumerate(found) if isinstance(row.get(column), str) and row[column].strip()]
        read = [index for index in texts if index in lists]
        if 2 * len(read) < len(texts):
            lists = {index: said for index, said in lists.items() if index not in read}
            notes.append(
                f"In {len(read):,} rows the text in `{column}` is JSON of messages. It is used as it stands there."
            )
        elif read:
            as_messages.add(column)
            faults |= {index: _not_messages(column, found[index]) for index in texts if index not in lists}
            notes.append(
                f"The text in `{column}` is JSON of messages in all rows, and is read as these messages. If the text "
                "itself is to be learned, put a word before it in some rows."
            )
        for index, said in lists.items():
            found[index] = found[index] | {column: said}
    return Parsed(rows=found, faults=faults, notes=tuple(notes), columns=frozenset(as_messages))


def _chats(row: Row) -> Row:
    """Return the row with the lists of its columns of chats, whatever is in them: faults name their place."""
    said = {column: value for column in CHATS if (value := _listed(row.get(column))) is not None}
    return row | said if said else row


def _in(value: Any) -> list[Any] | None:
    """Return the messages that a text is the JSON of, or the one message that a value is; else None."""
    found = _listed(value)
    return found if found and all(map(_is_message, found)) else None


def _listed(value: Any) -> list[Any] | None:
    """Return the list that a text is the JSON of, or a message as a list of one; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = parse(value)
        except ValueError:
            return None
        if isinstance(value, list):
            return value or None
    return [value] if _is_message(value) else None


def _is_message(value: Any) -> bool:
    """Return whether a JSON value has a known speaker and what it says; other objects are the text of an answer."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("role"), str) and value["role"] in ROLES:
        return bool(value.keys() & _SAID)
    speaker = value.get("from")
    return isinstance(speaker, str) and speaker in (*SPEAKERS, *CALLS) and isinstance(value.get("value"), str)


def _not_messages(column: str, row: Row) -> str:
    return unexpected(column, "messages as JSON text, as in most rows", row[column]).message
