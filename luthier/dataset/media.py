"""Names of columns, and of keys of messages, that hold pictures, video or sound: Luthier trains on text alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from luthier.dataset.errors import columns
from luthier.dataset.rows import COLUMNS, Row
from luthier.dataset.unstorable import Unstorable
from luthier.errors import DatasetError
from luthier.task import DataKind

MEDIA: Final = ("images", "videos", "audios", "image", "video", "audio")
_NAME: Final = re.compile(
    r"((input|user|assistant|prompt|question|query|answer)_)?(image|img|picture|photo|video|audio|pixel_value)s?"
    r"(_(path|url|uri|file|filename|file_name|name|byte|base64|b64|id|data)s?)?|(experimental_)?attachments",
    re.IGNORECASE,
)

_PLACE: Final = re.compile(  # where a program puts the picture into the text
    r"<\|?/?(image|img|picture|video|audio|sound|vision_start|vision_end)(_?\d+|_pad|_placeholder)?\|?>|\[img\]",
    re.IGNORECASE,
)
_ABOUT: Final = re.compile(r".*_(id|name|filename)s?", re.IGNORECASE)  # names the media, which a transcript may be of
_NOTHING: Final = frozenset({"", "false", "no", "none", "null", "nan", "n/a", "0", "[]"})


def is_media(name: str) -> bool:
    """Return whether a column or a key of this name holds media, or says where they are."""
    return _NAME.fullmatch(name.strip()) is not None


def check(message: dict[str, Any], field: str) -> None:
    """Raise DatasetError for a message, or a part of one, with media."""
    for name, value in message.items():
        if value and is_media(name):
            raise DatasetError(f"field `{field}.{name}`: images, video and audio are not supported; remove it")


def given(value: Any) -> bool:
    """Return whether a cell has media. Texts such as `False`, which CSV files have, mean none."""
    return bool(value) and not (isinstance(value, str) and value.strip().lower() in _NOTHING)


def fault(rows: Sequence[Row], kind: DataKind, unused: Sequence[str]) -> str | None:
    """Return what is wrong with normalised rows whose texts show places of media that a column has; else None.

    `unused`: the columns that no training uses.
    """
    found = _given(rows, unused)
    if not found or 2 * _places(rows, kind) < len(rows):
        return None
    return f"columns {columns(found)}: images, video and audio are not supported, but the texts have places for them"


def notes(rows: Sequence[Row], kind: DataKind, unused: Sequence[str]) -> Iterator[str]:
    """Yield which columns have media that no training sees, and in how many rows the text has a place for them."""
    found = [
        column
        for column in _given(rows, unused)
        if not (isinstance(rows[0].get(column), Unstorable) or _ABOUT.fullmatch(column.strip()))
    ]
    if found:
        yield f"No training sees the images, video or audio of {columns(found)}. Text alone is learned."
    if 2 * (count := _places(rows, kind)) >= len(rows):
        yield f"{count:,} rows have a place for an image, video or audio, such as <image>, which is read as text."


def _given(rows: Sequence[Row], unused: Sequence[str]) -> list[str]:
    named = [column for column in unused if is_media(column)]
    return [column for column in named if any(given(row.get(column)) for row in rows)]


def _places(rows: Sequence[Row], kind: DataKind) -> int:
    """Return how many rows have a place for media in their first column: the text, the prompt or the chat."""
    first = COLUMNS[kind][0]
    return sum(any(("<" in text or "[" in text) and _PLACE.search(text) for text in _texts(row[first])) for row in rows)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [message["content"] for message in value]
