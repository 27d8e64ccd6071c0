"""Content-addressed files on any fsspec URL: datasets, checkpoints and exports, each named by its SHA-256.

A blob is there whole or not at all: it is written under a temporary name and moved into place. A blob never changes,
so that storing one twice is harmless. Layout: `ab/cd/abcd…`; what is being written lies under `incoming/`.
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
    """The store of blobs behind a URL, e.g. `file:///var/lib/luthier/blobs` or `s3://bucket/prefix`.

    Raises UserError for a URL that fsspec does not know or lacks the package for. Thread-safe where the file system is.
    """

    def __init__(self, url: str) -> None:
        try:
            # Other processes write here too: what a listing said a moment ago may no longer hold.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise UserError(f"blobs cannot be kept at {url!r}: {error}", param="blobs_url") from error
        self._root = str(root).rstrip("/")

    def put(self, stream: BinaryIO) -> tuple[str, int]:
        """Store what is left of `stream`; answers with its digest and its size in bytes."""
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
        """Store `content`; answers with its digest."""
        return self.put(io.BytesIO(content))[0]

    def open(self, digest: str) -> BinaryIO:
        """The blob for reading; the caller closes it. Raises BlobMissing."""
        try:
            file: BinaryIO = self._fs.open(self._path(digest), "rb")
        except FileNotFoundError as error:
            raise _missing(digest) from error
        return file

    def exists(self, digest: str) -> bool:
        return _DIGEST.fullmatch(digest) is not None and bool(self._fs.exists(self._path(digest)))

    def size(self, digest: str) -> int:
        """In bytes. Raises BlobMissing."""
        try:
            return int(self._fs.size(self._path(digest)))
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def delete(self, digest: str) -> None:
        """Nothing happens where there is no such blob: somebody else deleted it first."""
        if self.exists(digest):
            self._remove(self._path(digest))

    def _path(self, digest: str) -> str:
        # Digests arrive in URLs: whatever is not one must never become a path.
        if not _DIGEST.fullmatch(digest):
            raise _missing(digest)
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)


def _sync(file: BinaryIO) -> None:
    """Put a local file's content on the disk before its name: after a power cut a blob must not be there empty."""
    file.flush()
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return  # not a local file
    os.fsync(descriptor)


def _missing(digest: str) -> BlobMissing:
    return BlobMissing(f"there is no blob {digest!r}", param="digest")
