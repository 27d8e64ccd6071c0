"""What every route and background thread works with. It is opened once, when the service starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import Annotated, BinaryIO, cast

from fastapi import Depends, Request

from luthier.blobs import Blobs
from luthier.keys import Secret
from luthier.settings import Settings
from luthier.store.database import Database
from service.blob_gc import Garbage


class Arrivals:
    """Counts the questions that this replica has received. A changed count says that the store may hold a new one."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def arrived(self) -> None:
        self._count += 1


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    database: Database
    blobs: Blobs
    garbage: Garbage
    secret: Secret
    turn: Lock = field(default_factory=Lock)  # one thread at a time advances jobs
    questions: Arrivals = field(default_factory=Arrivals)
    _row_counts: dict[str, int] = field(default_factory=dict)

    def store_blob(self, stream: BinaryIO) -> tuple[str, int]:
        """Store the stream as a blob that something will refer to soon. Return its digest and size in bytes."""
        digest, size = self.blobs.put(stream)
        self.garbage.mark_used(digest, utc_now())
        return digest, size

    def store_bytes(self, content: bytes) -> str:
        """Store the content as a blob that something will refer to soon. Return its digest."""
        return self.store_blob(BytesIO(content))[0]

    def count_rows(self, digest: str) -> int:
        """Return the number of lines of a JSON Lines blob. Blobs never change, so each is counted once."""
        if digest not in self._row_counts:
            with self.blobs.open(digest) as stream:
                self._row_counts[digest] = sum(1 for _ in stream)
        return self._row_counts[digest]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def _of_request(request: Request) -> Context:
    return cast("Context", request.app.state.context)


Ctx = Annotated[Context, Depends(_of_request)]
