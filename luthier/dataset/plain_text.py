"""Split plain text and Markdown into pieces, so that a document can be divided into train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Final

from luthier.dataset.errors import Faults
from luthier.dataset.json_rows import lines
from luthier.dataset.rows import Row

PIECE_CHARACTERS: Final = 2_000
_HEADING: Final = re.compile(r"#{1,6}\s")
_BLANK_LINES: Final = re.compile(r"(?:[^\S\n]*\n)+")


def text_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield pieces of about 2,000 characters, split at blank lines and before headings.

    Each is a part of the text as it stands there, but for the line ends of Windows. Only blank lines and spaces between
    two pieces are in neither.
    """
    text = (line.text.replace("\r\n", "\n") for line in lines(stream, limit, faults))
    for number, piece in enumerate(_pieces(_paragraphs(text)), 1):
        yield number, {"text": piece}


def _pieces(paragraphs: Iterable[str]) -> Iterator[str]:
    """Join paragraphs until the next one would exceed the length, or starts a section in the second half of it."""
    piece = ""
    for paragraph in paragraphs:
        section = _HEADING.match(paragraph) and len(piece) > PIECE_CHARACTERS // 2
        if piece and (section or len(piece) + len(paragraph.rstrip()) > PIECE_CHARACTERS):
            yield from _trimmed(piece)
            piece = ""
        piece += paragraph
    yield from _trimmed(piece)


def _trimmed(piece: str) -> Iterator[str]:
    """Yield a piece without blank lines before it and white space after it; nothing if nothing is left."""
    blank = _BLANK_LINES.match(piece)
    if trimmed := piece[blank.end() if blank else 0 :].rstrip():
        yield trimmed


def _paragraphs(text: Iterable[str]) -> Iterator[str]:
    """Yield the text in parts that are each a paragraph, with the blank lines after it, or start with a heading.

    Long paragraphs are split between lines, then words.
    """
    paragraph, ended = "", False
    for line in text:
        for part in _short_parts(line):
            begins = _HEADING.match(part) or (ended and part.strip())
            if paragraph and (begins or len(paragraph) + len(part.rstrip()) > PIECE_CHARACTERS):
                yield paragraph
                paragraph = ""
            paragraph += part
            ended = not part.strip()
    if paragraph:
        yield paragraph


def _short_parts(line: str) -> Iterator[str]:
    while len(line.rstrip()) > PIECE_CHARACTERS:
        cut = line.rfind(" ", 1, PIECE_CHARACTERS) + 1 or PIECE_CHARACTERS
        yield line[:cut]
        line = line[cut:]
    yield line
