"""A tar archive of blobs, made while it is sent: it never lies on disk or in memory as a whole."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from luthier.blobs import Blobs

CHUNK: Final = 1 << 20
END: Final = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, kw_only=True)
class _Member:
    digest: str
    header: bytes
    padding: bytes


class BlobArchive:
    """The files (path → digest) in the POSIX (PAX) format, sorted by path. Raises BlobMissing at once, or never."""

    def __init__(self, blobs: Blobs, files: Mapping[str, str], changed: datetime) -> None:
        self._blobs = blobs
        self._members: list[_Member] = []
        self.bytes = len(END)
        for path, digest in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime, entry.mode = blobs.size(digest), int(changed.timestamp()), 0o644
            member = _Member(
                digest=digest,
                header=entry.tobuf(tarfile.PAX_FORMAT),
                padding=bytes(-entry.size % tarfile.BLOCKSIZE),
            )
            self._members.append(member)
            self.bytes += len(member.header) + entry.size + len(member.padding)

    def __iter__(self) -> Iterator[bytes]:
        for member in self._members:
            yield member.header
            with self._blobs.open(member.digest) as source:
                while chunk := source.read(CHUNK):
                    yield chunk
            yield member.padding
        yield END
