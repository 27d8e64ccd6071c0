"""Rows as JSON Lines, and hashes of rows and of their prompts."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

from luthier.task import DataKind

Row = dict[str, Any]

MOST_COLUMNS: Final = 10_000  # of a row
_UNSEEN: Final = "\u034f\u115f\u1160\u2800\u3164\uffa0"  # fillers, which Unicode counts as letters or signs

COLUMNS: dict[DataKind, tuple[str, ...]] = {
    DataKind.TEXT: ("text",),
    DataKind.PAIRS: ("prompt", "completion"),
    DataKind.CHAT: ("messages",),
    DataKind.PREFERENCE: ("prompt", "chosen", "rejected"),
    DataKind.PROMPTS: ("prompt",),
    DataKind.UNPAIRED: ("prompt", "completion", "label"),
}
"""TRL's columns of each kind. Other columns of a row are for graders and are never trained on."""


def write_rows(rows: Iterable[Row]) -> bytes:
    """Return the rows as JSON Lines in UTF-8. Raises ValueError for numbers that are not finite."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def read_rows(data: bytes) -> list[Row]:
    """Return the rows that `write_rows` wrote."""
    return [json.loads(line) for line in data.split(b"\n") if line]


def too_many_columns(count: int) -> str:
    """Return the fault of a row or a file with more than 10,000 columns, to be appended to its name."""
    return f"has {count:,} columns, which is more than the limit of {MOST_COLUMNS:,}"


def tools_field(row: Row) -> str | None:
    """Return the first field of a normalised row (not of kind text) that has tools, tool calls or replies, or None."""
    if row.get("tools"):
        return "tools"
    for column in ("messages", "prompt", "completion", "chosen", "rejected"):
        said = row.get(column)
        for index, message in enumerate(said if isinstance(said, list) else []):
            if message.get("tool_calls"):
                return f"{column}[{index}].tool_calls"
            if message.get("role") == "tool":
                return f"{column}[{index}]"
    return None


def blank(text: str) -> bool:
    """Return whether a text has nothing that can be seen: only white space, and characters without a width."""
    return all(mark.isspace() or mark in _UNSEEN or unicodedata.category(mark) == "Cf" for mark in text)


def fold(text: str) -> str:
    """Return the text with case, white space and composed characters (Unicode's form NFC) normalised."""
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def prompt_text(row: Row, kind: DataKind) -> str:
    """Return the folded prompt, a chat's user turns, or the text.

    Of a prompt of messages only the user turns count, so that it equals the same question given as a string.
    """
    match kind:
        case DataKind.TEXT:
            return fold(row["text"])
        case DataKind.CHAT:
            return _user_turns(row["messages"])
        case DataKind.PAIRS | DataKind.PREFERENCE | DataKind.PROMPTS | DataKind.UNPAIRED:
            prompt = row["prompt"]
            return fold(prompt) if isinstance(prompt, str) else _user_turns(prompt)


def system_text(row: Row, kind: DataKind) -> str:
    """Return the folded system and developer messages of a row; empty without any."""
    said = row["messages"] if kind is DataKind.CHAT else row.get("prompt")
    messages = said if isinstance(said, list) else []
    return "\n".join(fold(message["content"]) for message in messages if message["role"] in ("system", "developer"))


def prompt_hash(row: Row, kind: DataKind) -> str:
    """Return the SHA-256 of `prompt_text`; rows that share it stay in one split."""
    return text_hash(prompt_text(row, kind))


def row_hash(row: Row, kind: DataKind) -> str:
    """Return the SHA-256 of the row's folded TRL columns and tools, without extra columns."""
    content = [_folded(row[column]) for column in COLUMNS[kind]]
    return text_hash(json.dumps([*content, row.get("tools")], ensure_ascii=False, sort_keys=True))


def exact_hash(row: Row, kind: DataKind) -> str:
    """Return the same of the columns as they stand there: case and white space matter, as in code.

    Composed and decomposed characters (Unicode's forms NFC and NFD) are the same text.
    """
    content = [row[column] for column in COLUMNS[kind]]
    written = json.dumps([*content, row.get("tools")], ensure_ascii=False, sort_keys=True)
    return text_hash(unicodedata.normalize("NFC", written))


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _user_turns(messages: list[Row]) -> str:
    turns = [message for message in messages if message["role"] == "user"] or messages
    return "\n".join(fold(message["content"]) for message in turns)


def _folded(value: Any) -> Any:
    match value:
        case str():
            return fold(value)
        case list():
            return [_folded(item) for item in value]
        case dict():
            return {key: _folded(item) for key, item in value.items()}
        case _:
            return value
