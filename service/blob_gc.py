"""Deleting blobs that nothing refers to any more, without taking one away under a worker that is about to refer to it.

Blobs are content-addressed: the tokenizer of a dropped export is, byte for byte, that of the export being uploaded now.
So a blob that was uploaded or asked for lately is spared until its uploader has had time to finish. What is due is
kept in memory only: a restart forgets it, which costs disk space and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from luthier.blobs import Blobs
from luthier.store import artifacts
from luthier.store.database import Database

GRACE: Final = timedelta(minutes=15)


class Garbage:
    """The blobs that may have become garbage. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted_at: dict[str, datetime] = {}
        self._condemned: set[str] = set()

    def wanted(self, digest: str, now: datetime) -> None:
        """Somebody has just stored the blob or made sure that it is there: it is spared for a while."""
        with self._lock:
            self._wanted_at[digest] = now

    def condemn(self, digests: Iterable[str]) -> None:
        """Something stopped referring to these; they go if nothing else does."""
        with self._lock:
            self._condemned.update(digests)

    def forsake(self, digests: Collection[str]) -> None:
        """The only one who knew of these blobs has let them go (a superseded checkpoint): they go without grace, since
        at gigabytes a minute the grace would fill a disk."""
        with self._lock:
            self._condemned.update(digests)
            for digest in digests:
                self._wanted_at.pop(digest, None)

    def sweep(self, database: Database, blobs: Blobs, now: datetime) -> set[str]:
        """Delete what is due and unreferenced; answers with the digests deleted."""
        with self._lock:
            self._wanted_at = {digest: at for digest, at in self._wanted_at.items() if now - at < GRACE}
            due = self._condemned - self._wanted_at.keys()
        if not due:
            return set()
        # The store's transaction always comes before the lock: routes condemn blobs inside theirs.
        with database.begin() as c, self._lock:
            due -= self._wanted_at.keys()
            free = artifacts.unreferenced(c, due)
            for digest in free:
                blobs.delete(digest)
            self._condemned -= due
        return free
