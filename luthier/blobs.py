"""Content-addressed files on any fsspec URL: datasets, checkpoints and exports, each named by its SHA-256.

Writes are atomic: a blob is written under a temporary name in `incoming/` and then moved to `ab/cd/abcd…`. A blob never
changes, so storing one twice is harmless.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
from typing import BinaryIO, Final

from fsspec.core import url_to_fs

from luthier.errors import BlobMissing, UserError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK: Final = 1 << 20


class Blobs:
    """The store of blobs at a URL, e.g. `file:///var/lib/luthier/blobs` or `s3://bucket/prefix`.

    Raises UserError if fsspec does not know the URL's scheme or its package is missing. As thread-safe as the fsspec
    file system.
    """

    def __init__(self, url: str) -> None:
        try:
            # Other processes write here too, so a cached listing may be out of date.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise UserError(f"cannot store blobs at {url!r}: {error}", param="blobs_url") from error
        self._root = str(root).rstrip("/")

    def put(self, stream: BinaryIO) -> tuple[str, int]:
        """Store the rest of `stream`; return its digest and its size in bytes."""
        incoming = f"{self._root}/incoming/{secrets.token_hex(16)}"
        sha = hashlib.sha256()
        size = 0
        self._fs.makedirs(f"{self._root}/incoming", exist_ok=True)
        try:
            with self._fs.open(incoming, "wb") as file:
                while chunk := stream.read(_CHUNK):
                    sha.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                _sync(file)
            digest = sha.hexdigest()
            if not self.exists(digest):
                path = self._path(digest)
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.mv(incoming, path)
        finally:
            self._remove(incoming)
        return digest, size

    def put_bytes(self, content: bytes) -> str:
        """Store `content`; return its digest."""
        return self.put(io.BytesIO(content))[0]

    def open(self, digest: str) -> BinaryIO:
        """Open the blob for reading; the caller closes it. Raises BlobMissing."""
        try:
            file: BinaryIO = self._fs.open(self._path(digest), "rb")
        except FileNotFoundError as error:
            raise _missing(digest) from error
        return file

    def exists(self, digest: str) -> bool:
        return _DIGEST.fullmatch(digest) is not None and bool(self._fs.exists(self._path(digest)))

    def size(self, digest: str) -> int:
        """Return the size in bytes. Raises BlobMissing."""
        try:
            return int(self._fs.size(self._path(digest)))
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def delete(self, digest: str) -> None:
        """Delete the blob if it exists; another process may have deleted it already."""
        if self.exists(digest):
            self._remove(self._path(digest))

    def _path(self, digest: str) -> str:
        # Digests arrive in URLs: any other text must never become a path.
        if not _DIGEST.fullmatch(digest):
            raise _missing(digest)
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)


def _sync(file: BinaryIO) -> None:
    """Flush a local file to the disk before it gets its name, so that a power cut leaves no empty blob."""
    file.flush()
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return  # not a local file
    os.fsync(descriptor)


def _missing(digest: str) -> BlobMissing:
    return BlobMissing(f"Blob {digest!r} was not found.", param="digest")
