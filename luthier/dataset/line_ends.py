"""Line ends of old Macs: a carriage return alone, as Excel's "CSV (Macintosh)" still writes them."""

from __future__ import annotations

import io
from io import BufferedReader
from typing import Any, Final

_HEAD_BYTES: Final = 2**20


def with_unix_line_ends(stream: BufferedReader) -> BufferedReader:
    """Return the stream, with line feeds for carriage returns if its first mebibyte has only carriage returns."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if b"\r" not in head.rstrip() or b"\n" in head:
        return stream
    return BufferedReader(_LineFeeds(stream))


class _LineFeeds(io.RawIOBase):
    """The bytes of a stream, with line feeds for carriage returns."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data.replace(b"\r", b"\n")
        return len(data)
