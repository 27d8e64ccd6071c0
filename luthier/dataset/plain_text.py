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


def text_rows(stream: BufferedReader, limit: int, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield pieces of about 2,000 characters, split at blank lines and before headings. No text is dropped."""
    for number, piece in enumerate(_pieces(_paragraphs(line.text for line in lines(stream, limit, faults))), 1):
        yield number, {"text": piece}


def _pieces(paragraphs: Iterable[str]) -> Iterator[str]:
    """Join paragraphs until the next one would exceed the length, or starts a section in the second half of it."""
    piece = ""
    for paragraph in paragraphs:
        joined = f"{piece}\n\n{paragraph}"
        section = _HEADING.match(paragraph) and len(piece) > PIECE_CHARACTERS // 2
        if piece and (section or len(joined) > PIECE_CHARACTERS):
            yield piece
            piece = paragraph
        else:
            piece = joined if piece else paragraph
    if piece:
        yield piece


def _paragraphs(text: Iterable[str]) -> Iterator[str]:
    """Yield the text between blank lines and headings. Long paragraphs are split between lines, then words."""
    paragraph: list[str] = []
    length = 0
    for line in text:
        for part in _short_lines(line.rstrip()):
            heading = bool(_HEADING.match(part))
            if paragraph and (heading or length + len(part) > PIECE_CHARACTERS):
                yield "\n".join(paragraph)
                paragraph, length = [], 0
            paragraph.append(part)
            length += len(part) + 1
        if not line.strip() and paragraph:
            yield "\n".join(paragraph)
            paragraph, length = [], 0
    if paragraph:
        yield "\n".join(paragraph)


def _short_lines(line: str) -> Iterator[str]:
    while len(line) > PIECE_CHARACTERS:
        cut = line.rfind(" ", 1, PIECE_CHARACTERS) + 1 or PIECE_CHARACTERS
        yield line[:cut].rstrip()
        line = line[cut:]
    if line.strip():
        yield line
