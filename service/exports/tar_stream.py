"""A tar archive that is created while it is streamed: it is never on disk or in memory as a whole."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from luthier.blobs import Blobs

CHUNK: Final = 1 << 20
END: Final = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file: its path in the archive, its size in bytes, and its content in pieces."""

    path: str
    size: int
    content: Iterable[bytes]


class Archive:
    """An archive in the POSIX (PAX) format, sorted by path."""

    def __init__(self, entries: Iterable[Entry], changed: datetime) -> None:
        self._members: list[tuple[bytes, Entry]] = []
        self.bytes = len(END)
        for entry in sorted(entries, key=lambda entry: entry.path):
            info = tarfile.TarInfo(entry.path)
            info.size, info.mtime, info.mode = entry.size, int(changed.timestamp()), 0o644
            header = info.tobuf(tarfile.PAX_FORMAT)
            self._members.append((header, entry))
            self.bytes += len(header) + entry.size + _padding(entry)

    def __iter__(self) -> Iterator[bytes]:
        for header, entry in self._members:
            yield header
            yield from entry.content
            yield bytes(_padding(entry))
        yield END


def of_blob(blobs: Blobs, path: str, digest: str) -> Entry:
    """Return an entry with the content of a blob. Raises BlobMissing at once, not while streaming."""
    return Entry(path=path, size=blobs.size(digest), content=_Pieces(blobs, digest))


def of_text(path: str, text: str) -> Entry:
    content = text.encode()
    return Entry(path=path, size=len(content), content=[content])


@dataclass(frozen=True)
class _Pieces:
    blobs: Blobs
    digest: str

    def __iter__(self) -> Iterator[bytes]:
        with self.blobs.open(self.digest) as source:
            while chunk := source.read(CHUNK):
                yield chunk


def _padding(entry: Entry) -> int:
    return -entry.size % tarfile.BLOCKSIZE
