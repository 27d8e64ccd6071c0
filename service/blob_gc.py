"""Delete blobs that nothing refers to any more, but not those that an upload is about to refer to.

Blobs are content-addressed. The tokenizer of a dropped artifact may be, byte for byte, that of an artifact which is
being uploaded now. So a blob that was stored or asked for lately is kept for a grace period. The list of candidates is
in memory only: a restart forgets it, which costs disk space and nothing else.
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
    """Blobs that may be unreferenced. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_at: dict[str, datetime] = {}
        self._candidates: set[str] = set()

    def mark_used(self, digest: str, now: datetime) -> None:
        """Keep the blob for the grace period: somebody has just stored it or checked that it exists."""
        with self._lock:
            self._used_at[digest] = now

    def release(self, digests: Iterable[str]) -> None:
        """Consider these blobs for deletion: one reference to them is gone. They stay while others exist."""
        with self._lock:
            self._candidates.update(digests)

    def release_at_once(self, digests: Collection[str]) -> None:
        """Like `release`, without the grace period. For blobs that only one trial knew of, such as its last checkpoint.

        Training can write gigabytes of checkpoints a minute, so that the grace period would fill a disk.
        """
        with self._lock:
            self._candidates.update(digests)
            for digest in digests:
                self._used_at.pop(digest, None)

    def sweep(self, database: Database, blobs: Blobs, now: datetime) -> set[str]:
        """Delete the candidates that are unreferenced and past their grace period. Return their digests."""
        with self._lock:
            self._used_at = {digest: at for digest, at in self._used_at.items() if now - at < GRACE}
            due = self._candidates - self._used_at.keys()
        if not due:
            return set()
        # The store's transaction always comes before the lock: routes release blobs inside theirs.
        with database.begin() as c, self._lock:
            due -= self._used_at.keys()
            deleted = artifacts.unreferenced(c, due)
            for digest in deleted:
                blobs.delete(digest)
            self._candidates -= due
        return deleted
